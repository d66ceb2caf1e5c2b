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

  // On a phone the navigation is wider than the window: where we are is in sight.
  document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

  // Says something to those who do not see it happen, too.
  const say = (words) => {
    const place = document.getElementById("status");
    if (place) place.textContent = words;
  };

  // Copies a text: `data-copy` names the element that holds it. Where the browser refuses (it asks for
  // HTTPS), the text is selected, so that the keyboard copies it.
  const offerCopies = () => {
    for (const button of document.querySelectorAll("[data-copy][hidden]")) button.hidden = false;
  };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("[data-copy]");
    const source = button && document.getElementById(button.dataset.copy);
    if (!source) return;
    try {
      await navigator.clipboard.writeText(source.textContent);
      say("Copied");
    } catch {
      getSelection().selectAllChildren(source);
      say("Selected: copy it with the keyboard");
    }
  });
  offerCopies();

  // A page that asks again by itself says when nobody answers, and when somebody does again.
  let isAnswered = true;
  const answered = (is) => {
    if (is !== isAnswered) say(is ? "The server answers again" : "The server does not answer: what is shown may be old");
    document.documentElement.toggleAttribute("data-unanswered", !is);
    isAnswered = is;
  };
  document.addEventListener("htmx:error", () => answered(false));
  document.addEventListener("live:lost", () => answered(false));
  document.addEventListener("live:back", () => answered(true));
  document.addEventListener("htmx:after:request", (event) => answered(event.detail.ctx.response.status < 500));
})();

// A page that is long in coming says so; the one that is left stays where it is.
(() => {
  const LONG = 400;
  let late;
  const stop = () => {
    clearTimeout(late);
    document.documentElement.removeAttribute("data-loading");
  };
  const begin = () => {
    clearTimeout(late);
    late = setTimeout(() => {
      document.documentElement.toggleAttribute("data-loading", true);
      const place = document.getElementById("status");
      if (place) place.textContent = "Loading";
    }, LONG);
  };
  document.addEventListener("submit", (event) => event.defaultPrevented || begin());
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("main a[href], nav a[href]");
    const other = event.defaultPrevented || event.ctrlKey || event.metaKey || event.shiftKey;
    if (link && !other && !link.hasAttribute("download") && !link.hash) begin();
  });
  // Whoever stops it, or comes back to it, has a page that is there.
  document.addEventListener("keydown", (event) => event.key === "Escape" && stop());
  window.addEventListener("pageshow", stop);
})();

// Lists: tick all, and how many new ones there are. The list itself never moves under its reader's eyes.
(() => {
  for (const button of document.querySelectorAll("[data-tick-all]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const boxes = [...button.form.querySelectorAll('input[name="d"]')];
      const all = boxes.every((box) => box.checked);
      for (const box of boxes) box.checked = !all;
    });
  }

  for (const link of document.querySelectorAll("[data-live]")) {
    const words = link.textContent;
    const source = new EventSource(new URL(link.dataset.live, document.baseURI));
    source.addEventListener("newer", (event) => {
      const some = event.data !== "0";
      link.textContent = some ? `${event.data} new: show them` : words;
      link.classList.toggle("fresh", some);
    });
    // The browser asks again by itself; meanwhile the list is of the past, and says so.
    let late;
    source.addEventListener("error", () => {
      late ??= setTimeout(() => document.dispatchEvent(new Event("live:lost")), 2000);
    });
    source.addEventListener("open", () => {
      late = clearTimeout(late);
      document.dispatchEvent(new Event("live:back"));
    });
    window.addEventListener("pagehide", () => source.close());
  }
})();
