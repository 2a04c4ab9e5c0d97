"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // Tables: a click on a head sorts, numbers by size, what has none last either way.
  // Labels are words and numbers: tau 0.25, tau 0.5, tau 10.
  const EMPTY = /^\s*(-|−|–|—|[+−-]?(nan|inf)|(\d+ )?failed)?\s*$/i;
  const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?/i;
  const keyOf = (row, column) => {
    const cell = row.cells[column];
    const text = (cell ? cell.dataset.value ?? cell.textContent : "").trim();
    if (EMPTY.test(text)) return null;
    const found = cell.matches("td:not(.text)") && text.replace(/^−/, "-").match(NUMBER);
    if (found) return [Number(found[0])];
    const parts = text.split(/(\d+(?:\.\d+)?)/);
    return parts.map((part, i) => (i % 2 ? Number(part) : part));
  };
  const compare = (a, b) => {
    for (let i = 0; i < Math.min(a.length, b.length); i++) {
      const numbers = typeof a[i] === "number" && typeof b[i] === "number";
      const order = numbers ? a[i] - b[i] : String(a[i]).localeCompare(String(b[i]));
      if (order) return order;
    }
    return a.length - b.length;
  };
  const sort = (table, head) => {
    const column = head.cellIndex;
    const descending = head.getAttribute("aria-sort") === "ascending";
    const rows = all("tbody tr", table).map((row) => ({ row, key: keyOf(row, column) }));
    rows.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
      return descending ? compare(b.key, a.key) : compare(a.key, b.key);
    });
    all("th[aria-sort]", table).forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    table.tBodies[0].append(...rows.map((each) => each.row));
  };
  for (const table of all("table.sortable")) {
    for (const head of all("thead th", table)) {
      const button = head.querySelector("button");
      if (button) button.addEventListener("click", () => sort(table, head));
    }
  }

  // Commands are copied; where the browser forbids it, they are selected.
  for (const button of all("button.copy")) {
    button.addEventListener("click", async () => {
      const code = button.previousElementSibling;
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }

  // A link to something folded opens it; so does print, but for what would fill a book.
  const reveal = () => {
    let id = location.hash.slice(1);
    try { id = decodeURIComponent(id); } catch { return; }
    const target = id && document.getElementById(id);
    if (!target) return;
    for (let node = target; node; node = node.parentElement) {
      if (node.tagName === "DETAILS") node.open = true;
    }
    target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (link && link.hash === location.hash) reveal(); // which is no change
  });
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open], .bulk, .long)");
    opened.forEach((each) => { each.open = true; });
  });
  addEventListener("afterprint", () => {
    opened.forEach((each) => { each.open = false; });
    opened = [];
  });

  // Figures: a full-screen dialog, which brings Escape and the focus back by itself.
  const dialog = document.querySelector("dialog");
  const stage = dialog.querySelector(".stage");
  const image = dialog.querySelector("img");
  const view = { x: 0, y: 0, scale: 1 };
  const show = () => {
    image.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
    image.dataset.scale = view.scale;
  };
  const fit = () => {
    const [width, height] = [stage.clientWidth, stage.clientHeight];
    view.scale = Math.min(width / image.width, height / image.height) * 0.94;
    view.x = (width - image.width * view.scale) / 2;
    view.y = (height - image.height * view.scale) / 2;
    show();
  };
  const zoom = (factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) => {
    const scale = Math.min(40, Math.max(0.1, view.scale * factor));
    view.x = x - (x - view.x) * (scale / view.scale);
    view.y = y - (y - view.y) * (scale / view.scale);
    view.scale = scale;
    show();
  };
  const open = (button) => {
    const small = button.querySelector("img");
    image.src = small.src;
    image.alt = small.alt;
    dialog.setAttribute("aria-label", small.alt);
    image.width = small.naturalWidth || 800;
    image.height = small.naturalHeight || 600;
    dialog.showModal();
    fit();
  };
  for (const button of all("button.zoom")) button.addEventListener("click", () => open(button));
  const actions = {
    in: () => zoom(1.3), out: () => zoom(1 / 1.3), fit, close: () => dialog.close(),
  };
  for (const button of all(".bar button", dialog)) {
    button.addEventListener("click", actions[button.dataset.do]);
  }
  const keys = {
    "+": actions.in, "=": actions.in, "-": actions.out, "0": fit,
    ArrowLeft: () => { view.x += 60; show(); }, ArrowRight: () => { view.x -= 60; show(); },
    ArrowUp: () => { view.y += 60; show(); }, ArrowDown: () => { view.y -= 60; show(); },
  };
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), event.clientX, event.clientY - top());
  }, { passive: false });
  const top = () => stage.getBoundingClientRect().top;
  const fingers = new Map();
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event);
    stage.classList.add("dragged");
  });
  stage.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const other = [...fingers.values()].find((each) => each.pointerId !== event.pointerId);
    if (other) {
      const far = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      zoom(far(event) / Math.max(1, far(before)), other.clientX, other.clientY - top());
    } else {
      view.x += event.clientX - before.clientX;
      view.y += event.clientY - before.clientY;
      show();
    }
    fingers.set(event.pointerId, event);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    stage.addEventListener(name, (event) => {
      fingers.delete(event.pointerId);
      if (!fingers.size) stage.classList.remove("dragged");
    });
  }
  addEventListener("resize", () => { if (dialog.open) fit(); });
})();
