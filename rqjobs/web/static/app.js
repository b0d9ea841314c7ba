"use strict";

// Parts of a page that refresh themselves: <div data-live="URL" data-every="MS">. The server draws; here the new
// drawing is laid over the old one, changing only what differs, so that focus, selection and scrolling stay.
function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  const open = old.nodeName === "DETAILS" && old.open;
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (open) old.open = true;
  morphChildren(old, fresh);
}

function morphChildren(old, fresh) {
  const news = [...fresh.childNodes];
  const olds = [...old.childNodes];
  news.forEach((node, index) => (index < olds.length ? morph(olds[index], node) : old.append(node)));
  olds.slice(news.length).forEach((node) => node.remove());
}

async function refresh(part) {
  if (document.hidden || part.contains(document.activeElement?.closest("input, textarea, select"))) return;
  const answer = await fetch(part.dataset.live, { headers: { "X-Live": "1" }, credentials: "same-origin" });
  if (answer.status === 401) return location.reload();
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(`<div>${await answer.text()}</div>`, "text/html");
  morphChildren(part, document.importNode(page.body.firstElementChild, true));
}

for (const part of document.querySelectorAll("[data-live]")) {
  let busy = false;
  const tick = async () => {
    if (busy) return;
    busy = true;
    try {
      await refresh(part);
      part.classList.remove("stale");
    } catch {
      part.classList.add("stale"); // the server is away: the next tick tries again
    } finally {
      busy = false;
    }
  };
  setInterval(tick, Number(part.dataset.every) || 2000);
  document.addEventListener("visibilitychange", tick);
}

// What cannot be undone asks first: <form data-confirm="...">.
document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm ?? event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});
