"use strict";

// The pages of rq-dashboard. Whatever comes from jobs is put in as text, never as HTML.
const page = document.getElementById("rq").dataset;
const rows = document.getElementById("rows");

function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.map((child) => (child instanceof Node ? child : document.createTextNode(child ?? ""))));
  return node;
}

const data = (...parts) => page.root + "0/data/" + parts.map(encodeURIComponent).join("/") + ".json";
const jobLink = (id, text) => el("a", { href: page.root + "0/view/job/" + encodeURIComponent(id) }, text ?? id);
function listPage(changed) {
  const { queue, registry, perPage, order, page: number } = { ...page, ...changed };
  return page.root + "0/view/jobs/" + [queue, registry, perPage, order, number].map(encodeURIComponent).join("/");
}
const count = (value, url) => el("td", { class: "n" }, el("a", { href: url }, value.toLocaleString("en")));

function ago(stamp) {
  if (!stamp) return "–";
  const passed = (Date.now() - Date.parse(stamp)) / 1000;
  const [unit, size] = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]].find(([, s]) => Math.abs(passed) >= s) ?? ["s", 1];
  const number = Math.round(Math.abs(passed) / size) + unit;
  return passed >= 0 ? number + " ago" : "in " + number;
}

const post = async (url) => {
  const answer = await fetch(url, { method: "POST", headers: { "X-CSRF-Token": page.token } });
  if (!answer.ok) window.alert("That did not work: " + answer.status);
  return answer.ok;
};

function button(text, url, question, css = "small") {
  const node = el("button", { class: css, "data-post": url }, text);
  if (question) node.dataset.confirm = question;
  return node;
}

function fill(items, empty, columns) {
  rows.replaceChildren(...(items.length ? items : [el("tr", {}, el("td", { colspan: columns, class: "empty" }, empty))]));
}

const views = {
  async queues(read) {
    const { queues } = await read(data("queues"));
    fill(queues.map((q) => el("tr", {}, el("th", { scope: "row" }, q.name), count(q.count, q.queued_url),
      count(q.deferred_job_registry_count, q.deferred_url), count(q.scheduled_job_registry_count, q.scheduled_url),
      count(q.started_job_registry_count, q.started_url), count(q.finished_job_registry_count, q.finished_url),
      count(q.failed_job_registry_count, q.failed_url), count(q.canceled_job_registry_count, q.canceled_url))),
    "No queues.", 8);
  },
  async workers(read) {
    const { workers } = await read(data("workers"));
    fill(workers.map((w) => el("tr", {}, el("th", { scope: "row" }, el("code", {}, w.name)), el("td", {}, w.state),
      el("td", {}, w.current_job === "idle" ? (w.running ? w.running + " running" : "idle")
        : jobLink(w.current_job.job_id, w.current_job.description)),
      el("td", {}, w.queues.join(", ")), el("td", { class: "n" }, String(w.successful_job_count)),
      el("td", { class: "n" }, String(w.failed_job_count)))), "No workers.", 6);
  },
  async jobs(read) {
    const found = await read(data("jobs", page.queue, page.registry, page.perPage, page.order, page.page));
    document.getElementById("total").textContent = found.total.toLocaleString("en") + " jobs";
    fill(found.jobs.map((job) => {
      const what = el("td", {}, el("div", {}, job.description), el("small", {}, jobLink(job.id)));
      if (job.exc_info) what.append(el("div", { class: "error-line bad-text" }, job.exc_info));
      const act = el("td", { class: "act" });
      if (!page.readOnly) {
        const url = page.root + "job/" + encodeURIComponent(job.id);
        if (page.registry === "failed") act.append(button("Requeue", url + "/requeue"), " ");
        act.append(button("Delete", url + "/delete", "Delete this job for good?", "small danger"));
      }
      return el("tr", {}, what, el("td", {}, ago(job.created_at)), act);
    }), "No jobs.", 3);
    const to = (number, text) => el("a", { href: listPage({ page: number }) }, text);
    const nav = [String(found.page) + " of " + found.pages.toLocaleString("en")];
    if (found.page > 1) nav.unshift(to(1, "« first"), to(Math.min(found.page - 1, found.pages), "‹ back"));
    if (found.page < found.pages) nav.push(to(found.page + 1, "next ›"), to(found.pages, "last »"));
    document.getElementById("pages").replaceChildren(...nav.flatMap((each) => [each, " "]));
  },
  async job(read) {
    const job = await read(data("job", page.job));
    document.getElementById("label").textContent = job.description ?? job.id;
    const facts = [["Status", job.status], ["Queue", job.origin], ["Function", job.function],
      ["Created", ago(job.created_at)], ["Enqueued", ago(job.enqueued_at)], ["Started", ago(job.started_at)],
      ["Ended", ago(job.ended_at)]];
    const nodes = facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
    if (job.depends_on) {
      const links = job.depends_on.flatMap((id, n) => [job.depends_on_status[n] === "active" ? jobLink(id) : id + " (expired)", " "]);
      nodes.push(el("dt", {}, "Depends on"), el("dd", {}, ...links));
    }
    document.getElementById("facts").replaceChildren(...nodes);
    document.getElementById("result").textContent = JSON.stringify(job.result, null, 2);
    document.getElementById("metadata").textContent = JSON.stringify(job.metadata, null, 2);
    document.getElementById("exception").hidden = !job.exc_info;
    document.getElementById("exc-info").textContent = job.exc_info ?? "";
    const requeue = document.getElementById("requeue");
    if (requeue) requeue.hidden = job.status !== "failed";
  },
};

async function show() {
  const read = async (url) => (await fresh(url))?.json() ?? Promise.reject();
  await views[page.view](read).catch((error) => error && console.error(error));
}

document.addEventListener("click", async (event) => {
  const pressed = event.target.closest("[data-post]");
  if (!pressed || (pressed.dataset.confirm && !window.confirm(pressed.dataset.confirm))) return;
  if (await post(pressed.dataset.post)) pressed.dataset.then ? (location.href = pressed.dataset.then) : show();
});

for (const id of ["queue", "registry", "order", "per-page"]) {
  document.getElementById("pick-" + id)?.addEventListener("change", () => {
    const pick = (name) => document.getElementById("pick-" + name).value;
    location.href = listPage({ queue: pick("queue"), registry: pick("registry"), perPage: pick("per-page"), order: pick("order"), page: 1 });
  });
}

show();
setInterval(() => document.getElementById("autorefresh").checked && !document.hidden && show(), 2500);
