"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const cards = all("details.function");
  const search = document.getElementById("search");
  if (!search) return;
  const found = document.getElementById("found");
  const nodes = new Map(all("svg a").map((node) => [node.dataset.function, node]));
  const edges = all("svg .edges path");

  // Without a script everything is open; with one, what is equal is folded away.
  for (const button of all("tbody.fold button")) {
    const rows = button.closest("tbody").nextElementSibling;
    const fold = (closed) => {
      rows.hidden = closed;
      button.setAttribute("aria-expanded", String(!closed));
    };
    fold(true);
    button.addEventListener("click", () => fold(!rows.hidden));
  }

  const shown = () => cards.filter((card) => !card.hidden);
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const card of cards) {
      const hit = words.every((word) => card.dataset.words.includes(word));
      card.hidden = !hit;
      nodes.get(card.id.slice(1))?.classList.toggle("dim", !hit);
    }
    for (const edge of edges) {
      const ends = [edge.dataset.from, edge.dataset.to];
      edge.classList.toggle("dim", ends.some((end) => nodes.get(end).classList.contains("dim")));
    }
    const count = shown().length;
    found.textContent = words.length ? `${count} of ${cards.length}` : "";
    document.getElementById("nothing").hidden = count > 0;
  };
  search.addEventListener("input", filter);

  const open = (card) => {
    if (card.hidden) {
      search.value = "";
      filter();
    }
    card.open = true;
    const summary = card.querySelector("summary");
    summary.focus({ preventScroll: true });
    card.scrollIntoView({ block: "start" });
  };
  const follow = () => {
    const card = document.getElementById(location.hash.slice(1));
    if (cards.includes(card)) open(card);
  };
  addEventListener("hashchange", follow);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    // A second click on the same link changes no address and must lead there all the same.
    if (link?.getAttribute("href") === location.hash) follow();
  });
  const each = (is) => () => shown().forEach((card) => (card.open = is));
  document.getElementById("open-all").addEventListener("click", each(true));
  document.getElementById("close-all").addEventListener("click", each(false));

  const step = (by) => {
    const list = shown();
    const here = document.activeElement?.closest("details.function");
    const at = list.indexOf(here);
    const next = at < 0 ? (by > 0 ? 0 : list.length - 1) : at + by;
    const card = list[Math.min(Math.max(next, 0), list.length - 1)];
    const summary = card?.querySelector("summary");
    summary?.focus({ preventScroll: true });
    summary?.scrollIntoView({ block: "nearest" });
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { key, target } = event;
    if (target === search) {
      if (key === "Escape") {
        search.value = "";
        filter();
        search.blur();
      } else if (key === "Enter" || key === "ArrowDown") {
        step(1);
        event.preventDefault();
      }
      return;
    }
    const onSummary = target.matches("summary");
    if (key === "/") search.focus();
    else if (key === "g") document.querySelector("svg a")?.focus();
    else if (key === "j" || (key === "ArrowDown" && onSummary)) step(1);
    else if (key === "k" || (key === "ArrowUp" && onSummary)) step(-1);
    else return;
    event.preventDefault();
  });

  // The ties of the function that is pointed at, or has the focus, stand out.
  for (const [number, node] of nodes) {
    const light = (on) => () => {
      for (const edge of edges) {
        const tied = edge.dataset.from === number || edge.dataset.to === number;
        edge.classList.toggle("lit", on && tied);
      }
      document.querySelector("svg").classList.toggle("looking", on);
    };
    for (const event of ["mouseenter", "focus"]) node.addEventListener(event, light(true));
    for (const event of ["mouseleave", "blur"]) node.addEventListener(event, light(false));
  }
  follow();
})();
