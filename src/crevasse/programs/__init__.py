"""Small recursive programs over the integers: immutable trees that are printed, parsed, run and weighed in bits."""
