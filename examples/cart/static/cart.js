"use strict";

// Everything works without this file. With it, forms are sent in the background and the page is brought
// up to date in place; the server's HTML stays the only thing that knows what a cart looks like.

const REFRESHED = ["main", "badge", "messages"];
const SHOWN_FOR = 6000; // milliseconds; errors stay
let last = Promise.resolve();
let fading;

function show(text) {
  const message = document.createElement("p");
  message.className = "message error";
  message.textContent = text;
  document.getElementById("messages").replaceChildren(message);
}

function refresh(html) {
  const page = new DOMParser().parseFromString(html, "text/html");
  if (!page.getElementById("main")) throw new Error("not our page");
  const focused = document.activeElement && document.activeElement.id;
  for (const id of REFRESHED) {
    document.getElementById(id).replaceChildren(...page.getElementById(id).childNodes);
  }
  document.title = page.title;
  if (focused && document.activeElement.id !== focused) focus(focused);
}

function fadeLater() {
  clearTimeout(fading);
  fading = setTimeout(() => {
    for (const message of document.querySelectorAll(".message:not(.error)")) message.remove();
  }, SHOWN_FOR);
}

function focus(id) {
  const control = document.getElementById(id);
  // What was focused may be gone (a removed line) or disabled: go on from the heading then.
  (control && !control.disabled ? control : document.getElementById("cart-title")).focus();
}

async function send(action, fields) {
  const main = document.getElementById("main");
  main.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(action, {
      method: "POST",
      body: fields,
      headers: { Accept: "text/html" },
    });
    refresh(await answer.text());
    fadeLater();
  } catch {
    show("That did not work, nothing was changed. Please try again.");
  } finally {
    main.removeAttribute("aria-busy");
  }
}

document.addEventListener("submit", (event) => {
  event.preventDefault();
  const fields = new URLSearchParams(new FormData(event.target));
  const action = event.target.action;
  last = last.then(() => send(action, fields)); // one after the other, in the order of the clicks
});

document.addEventListener("change", (event) => {
  if (event.target.type === "number") event.target.form.requestSubmit();
});

fadeLater();
