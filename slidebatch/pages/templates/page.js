"use strict";
for (const box of document.querySelectorAll("input.outlines")) {
  box.addEventListener("change", () => document.body.classList.toggle("plain", !box.checked));
}
for (const crop of document.querySelectorAll("svg.crop")) {
  crop.addEventListener("click", () => crop.classList.toggle("large"));
}
window.addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
