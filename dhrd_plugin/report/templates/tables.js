"use strict";
// Headers of sortable tables become buttons: ascending first, then the other way round. Cells with
// data-value are sorted as numbers, others by their text; empty ones (a dash) come last either way.
const collator = new Intl.Collator("en", { numeric: true });

function sortKey(cell) {
  if ("value" in cell.dataset) return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  const text = cell.textContent.trim();
  return text === "" || text === "–" ? null : text;
}

function compare(a, b, direction) {
  if (a === null || b === null) return (a === null) - (b === null);
  const sign = typeof a === "number" && typeof b === "number"
    ? Math.sign(a - b)
    : collator.compare(a, b);
  return direction * sign;
}

function sortBy(head, heads, body) {
  const ascending = head.getAttribute("aria-sort") !== "ascending";
  for (const other of heads) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const key = (row) => sortKey(row.cells[head.cellIndex]);
  const rows = [...body.rows]; // sorting an array is stable
  rows.sort((a, b) => compare(key(a), key(b), ascending ? 1 : -1));
  body.append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows].at(-1).cells;
  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(head, heads, table.tBodies[0]));
    head.append(button);
  }
}
