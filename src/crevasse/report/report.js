"use strict";
// Draws pictures when they come into view (all of them before printing), sorts tables, hides trials by finding,
// and shows one bench at a time.
(() => {
  const pictures = JSON.parse(document.getElementById("pictures").textContent);
  const holders = [...document.querySelectorAll("[data-picture]")];
  const drawn = new Set();

  function draw(holder) {
    if (drawn.has(holder)) return;
    drawn.add(holder);
    const { data, layout } = pictures[holder.dataset.picture];
    Plotly.newPlot(holder, data, layout, { displayModeBar: false, responsive: true, scrollZoom: false });
    scalable(holder);
    holder.on("plotly_afterplot", () => scalable(holder));
  }

  // With a view box the style sheet for print can fit a picture to the paper without laying it out again.
  function scalable(holder) {
    for (const svg of holder.querySelectorAll("svg.main-svg")) {
      const width = parseFloat(svg.getAttribute("width"));
      const height = parseFloat(svg.getAttribute("height"));
      if (width && height) svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    }
    const box = holder.querySelector(".svg-container");
    if (box) box.style.aspectRatio = `${box.offsetWidth} / ${box.offsetHeight}`;
    holder.classList.add("drawn");  // until then print needs a height to draw for
  }

  // What is hidden has no size to be drawn for; it is drawn when it is shown.
  const drawAll = () => holders.filter((h) => !h.closest("[hidden]")).forEach(draw);
  if ("IntersectionObserver" in window) {
    const observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        observer.unobserve(entry.target);
        draw(entry.target);
      }
    }, { rootMargin: "400px" });
    holders.forEach((h) => observer.observe(h));
  } else {
    drawAll();
  }
  // On paper nobody can open the explanations, so they are printed; the samples only where the reader opened them.
  const words = document.querySelector(".words-list");
  let wordsWereOpen = words.open;
  addEventListener("beforeprint", () => {
    drawAll();
    wordsWereOpen = words.open;
    words.open = true;
  });
  addEventListener("afterprint", () => { words.open = wordsWereOpen; });
  matchMedia("print").addEventListener("change", (e) => e.matches && drawAll());

  // --- a long output shows the place at which it goes wrong, and what stands before ---
  function showFault(within) {
    for (const rest of within.querySelectorAll(".block > .rest")) {
      const block = rest.parentElement;
      block.scrollTop = Math.max(0, rest.offsetTop - block.clientHeight / 2);
    }
  }
  showFault(document);
  for (const samples of document.querySelectorAll("details.samples")) {
    samples.addEventListener("toggle", () => showFault(samples), { once: true });
  }

  // --- which findings the diagonal shows ---
  const diagonal = document.querySelector('[data-picture="lockstep"]');
  const keys = [...document.querySelectorAll("#findings button")];
  for (const key of keys) {
    key.addEventListener("click", () => {
      key.setAttribute("aria-pressed", String(key.getAttribute("aria-pressed") !== "true"));
      const shown = new Set(keys.filter((k) => k.getAttribute("aria-pressed") === "true").map((k) => k.dataset.colour));
      draw(diagonal);
      const visible = pictures.lockstep.data.map((trace) => shown.has(trace.meta[3]));
      if (visible.length) Plotly.restyle(diagonal, { visible });
    });
  }

  // --- one bench at a time ---
  const benches = document.getElementById("benches");
  benches?.addEventListener("change", (e) => {
    for (const pane of document.querySelectorAll(".pane[id]")) pane.hidden = pane.id !== `pane-${e.target.value}`;
    e.target.parentElement.scrollIntoView({ block: "nearest", inline: "nearest" });
  });

  // --- sorting: a heading sorts one way, then the other, then gives back the order of the study ---
  function sortable(table) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const headings = [...table.tHead.rows[0].cells];

    function sortBy(heading) {
      const column = heading.cellIndex;
      const text = heading.classList.contains("name");
      // Words begin at A, ranks and costs with the smallest; other numbers begin with the largest.
      const ways = heading.classList.contains("number") ? ["descending", "ascending"] : ["ascending", "descending"];
      const way = [...ways, "none"][ways.indexOf(heading.getAttribute("aria-sort")) + 1];
      headings.forEach((h) => h.hasAttribute("aria-sort") && h.setAttribute("aria-sort", h === heading ? way : "none"));
      table.classList.toggle("sorted", way !== "none");
      if (way === "none") return body.append(...original);
      const sign = way === "ascending" ? 1 : -1;
      const key = (row) => row.cells[column].dataset.value;
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === "" || y === "") return (x === "") - (y === "");  // what is missing comes last, both ways
        return sign * (text ? x.localeCompare(y) : Number(x) - Number(y));
      };
      body.replaceChildren(...original.filter((r) => r.classList.contains("arm")).sort(compare));
    }
    for (const heading of headings) heading.querySelector("button")?.addEventListener("click", () => sortBy(heading));
  }
  document.querySelectorAll("table.sortable").forEach(sortable);
})();
