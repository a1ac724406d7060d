"use strict";

// The socket closes for two kinds of reasons. Code 4401: the session has ended, so say why and stop. Anything
// else (the server restarts, the network is gone): connect again, later and later, never all at one moment.

const SESSION_ENDED = 4401;
const FIRST_WAIT = 500; // milliseconds
const LONGEST_WAIT = 15000;
const WHY = {
  "signed out": "You signed out in another tab.",
  "ended from another device": "You signed out this device from another one.",
  "somebody else signed in": "Somebody else signed in with this browser.",
  expired: "You were away for too long.",
};
const part = (id) => document.getElementById(id);

let socket;
let you = "";
let failures = 0;

function connect() {
  part("state").textContent = "Connecting …";
  let opened = false;
  const url = new URL("socket", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  socket = new WebSocket(url);
  socket.addEventListener("open", () => {
    opened = true;
    failures = 0;
    ready(true);
  });
  socket.addEventListener("message", (event) => receive(JSON.parse(event.data)));
  socket.addEventListener("close", (event) => closed(event.code, event.reason, opened));
}

async function closed(code, reason, opened) {
  ready(false);
  if (code === SESSION_ENDED) {
    end(reason);
  } else if (!opened && (await isStranger())) {
    end("expired"); // the handshake was refused, and scripts are not told with which status
  } else {
    connectLater();
  }
}

async function isStranger() {
  try {
    const answer = await fetch("/", { redirect: "manual", cache: "no-store" });
    return answer.type === "opaqueredirect"; // to the sign-in page
  } catch {
    return false; // nobody answers
  }
}

function connectLater() {
  const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** failures) * (0.5 + Math.random() / 2);
  failures += 1;
  part("state").textContent = "Not connected. Trying again …";
  setTimeout(connect, wait);
}

function end(reason) {
  part("why").textContent = WHY[reason] || "Your session has ended.";
  part("ended").hidden = false;
  part("state").textContent = "Closed";
  part("here").replaceChildren(element("li", "tabs", "Sign in to see who is."));
  document.querySelector(".leave").hidden = true;
  document.title = "Signed out – Lantern";
  scroll();
}

function ready(open) {
  if (open) part("state").textContent = "Connected";
  part("text").disabled = part("send").disabled = !open;
}

function receive(message) {
  if (message.kind === "welcome") {
    you = message.you;
    part("said").replaceChildren(...message.said.map(line));
    scroll();
  } else if (message.kind === "said") {
    part("said").append(line(message));
    scroll();
  } else if (message.kind === "here") {
    part("here").replaceChildren(...message.people.map(person));
  } else if (message.kind === "ended") {
    end(message.reason); // just before the socket is closed
  }
}

function element(tag, name, text) {
  const made = document.createElement(tag);
  made.className = name;
  made.textContent = text; // text, never HTML
  return made;
}

function line({ name, text }) {
  const made = element("li", name === you ? "line own" : "line", "");
  made.append(element("b", "who", name === you ? "You" : name), element("p", "text", text));
  return made;
}

function person({ name, tabs }) {
  const made = element("li", "person", "");
  made.append(element("b", "who", name === you ? `${name} (you)` : name));
  if (tabs > 1) made.append(element("span", "tabs", `${tabs} tabs`));
  return made;
}

function scroll() {
  part("said").scrollTop = part("said").scrollHeight;
}

part("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = part("text").value.trim();
  if (!text || socket.readyState !== WebSocket.OPEN) return;
  socket.send(text);
  part("text").value = "";
});

connect();
