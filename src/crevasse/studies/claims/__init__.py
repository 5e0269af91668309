"""The claims of the thesis, one file each (C9 and C10 share their arithmetic's)."""
