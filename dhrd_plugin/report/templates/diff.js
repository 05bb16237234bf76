// Without this the page is the plain list; with it, the list can be narrowed down.
const filters = document.getElementById("filters");
const articles = [...document.querySelectorAll("article")];
const texts = articles.map((article) => article.textContent.toLowerCase());

function narrow() {
  const { text, ...wanted } = Object.fromEntries(new FormData(filters));
  let shown = 0;
  for (const [i, article] of articles.entries()) {
    const fits = Object.entries(wanted).every(([key, value]) => !value || article.dataset[key] === value);
    article.hidden = !(fits && texts[i].includes(text.toLowerCase()));
    shown += !article.hidden;
  }
  for (const section of document.querySelectorAll("section:has(article)")) {
    section.hidden = !section.querySelector("article:not([hidden])");
  }
  filters.querySelector("output").value = `${shown} of ${articles.length} documents`;
}

// An address names a document: it must be there whatever is filtered.
function reveal() {
  const target = articles.find((article) => `#${article.id}` === decodeURIComponent(location.hash));
  if (!target?.hidden) return;
  filters.reset();
  narrow();
  target.scrollIntoView();
}

filters.hidden = false;
filters.addEventListener("input", narrow);
filters.addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", reveal);
narrow();
