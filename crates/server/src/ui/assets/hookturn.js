// What pages do in the browser beside htmx. No page needs it to be read.
"use strict";

(() => {
  const THEMES = ["system", "light", "dark"];
  const root = document.documentElement;

  const theme = () => localStorage.getItem("hookturn-theme") ?? "system";
  const show = () => {
    const name = theme();
    if (name === "system") root.removeAttribute("data-theme");
    else root.dataset.theme = name;
    for (const place of document.querySelectorAll("[data-theme-name]")) place.textContent = name;
  };

  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("[data-theme-toggle]")) return;
    const next = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
    localStorage.setItem("hookturn-theme", next);
    show();
  });

  show();
})();
