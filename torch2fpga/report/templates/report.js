"use strict";
// Everything works without this file: it only lights up edges, filters and sorts tables.
for (const node of document.querySelectorAll(".t2f-graph [data-stage]")) {
  const stage = node.dataset.stage;
  const edges = [...document.querySelectorAll(".t2f-graph .edge")].filter(
    (edge) => edge.dataset.from === stage || edge.dataset.to === stage);
  node.addEventListener("pointerenter", () => edges.forEach((edge) => edge.classList.add("near")));
  node.addEventListener("pointerleave", () => edges.forEach((edge) => edge.classList.remove("near")));
}

function filter(table, words) {
  for (const row of table.tBodies[0].rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
}

function value(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
}

function sort(table, head) {
  const column = head.cellIndex;
  const down = head.getAttribute("aria-sort") !== "descending";
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => {
    const [x, y] = [value(a, column), value(b, column)];
    return typeof x === "number" ? x - y : x.localeCompare(y);
  });
  if (down) rows.reverse();
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  table.tBodies[0].append(...rows);
}

for (const table of document.querySelectorAll("table[data-filter]")) {
  const input = document.createElement("input");
  input.type = "search";
  input.placeholder = "Filter " + table.dataset.filter;
  input.setAttribute("aria-label", input.placeholder);
  input.addEventListener("input", () => filter(table, input.value.toLowerCase().split(/\s+/)));
  const tools = document.createElement("div");
  tools.className = "tools";
  tools.append(input);
  table.closest(".scroll").before(tools);
  for (const head of table.tHead.rows[table.tHead.rows.length - 1].cells) {
    head.classList.add("sorts");
    head.title = "Sort";
    head.addEventListener("click", () => sort(table, head));
  }
}
