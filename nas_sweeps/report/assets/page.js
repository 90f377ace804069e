"use strict";
// Tables sort by a click on a heading and filter by words; nothing else happens here.
function sortKey(row, index) {
  const cell = row.cells[index];
  if (cell.classList.contains("missing")) return null;
  return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function sortBy(table, head) {
  const index = head.cellIndex;
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const keyed = Array.from(table.tBodies[0].rows, (row) => [sortKey(row, index), row]);
  keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null); // nothing goes last
    return down ? compare(b, a) : compare(a, b);
  });
  table.tBodies[0].append(...keyed.map(([, row]) => row));
}

function filterBy(table, words, output) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of table.tBodies[0].rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !wanted.every((word) => text.includes(word));
    shown += row.hidden ? 0 : 1;
  }
  output.textContent = `${shown} of ${table.tBodies[0].rows.length} rows`;
}

for (const box of document.querySelectorAll("div.table")) {
  const table = box.querySelector("table");
  for (const head of table.tHead.rows[0].cells) {
    head.querySelector("button").addEventListener("click", () => sortBy(table, head));
  }
  const input = box.querySelector("input");
  if (input) {
    const output = box.querySelector("output");
    input.addEventListener("input", () => filterBy(table, input.value, output));
  }
}
