"use strict";

const $ = (id) => document.getElementById(id);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const MEANING = { 400: "that is not acceptable", 403: "that is not yours", 404: "there is no such image", 409: "the image is processed already, or has a newer upload" };
let picture = null; // the Blob to upload
const mine = new Map(); // image id -> what this page knows of it

/* Every request may be repeated, so a 503 or a lost connection is only a reason to ask again. */
async function ask(method, path, body, patience = 8000) {
  const until = Date.now() + patience;
  for (;;) {
    const began = performance.now();
    let answer = null, data = {};
    try {
      answer = await fetch(path, {
        method, headers: body ? { "Content-Type": "application/json" } : {}, body: body && JSON.stringify(body),
      });
      data = await answer.json();
    } catch { /* no answer, or half of one */ }
    const source = answer?.headers.get("Imagery-Source") || "";
    note(method, path, answer?.status ?? "lost", performance.now() - began, source);
    if (answer && answer.status < 500) {
      if (!answer.ok) throw new Error(MEANING[answer.status] || `the application answered ${answer.status}`);
      return { data, source };
    }
    if (Date.now() > until) throw new Error("no answer; try again");
    await pause(1000 * (Number(answer?.headers.get("Retry-After")) || 0.5));
  }
}

function note(method, path, status, ms, source) {
  const row = $("answers").insertRow(0);
  const short = path.replace(/[0-9a-f]{8}-[0-9a-f-]{27}/, "…").replace(/\?.*/, "").replace(/^(\/users\/).*\//, "$1…/");
  for (const text of [`${method} ${short}`, status, `${Math.round(ms)} ms`, source]) row.insertCell().textContent = text;
  if (!(status < 400)) row.className = "bad";
  while ($("answers").rows.length > 12) $("answers").deleteRow(-1);
}

function choose(blob) {
  picture = blob;
  $("preview").hidden = false;
  $("preview").firstElementChild.src = URL.createObjectURL(blob);
  $("send").disabled = false;
}

function paint() {
  const canvas = $("paint"), pen = canvas.getContext("2d"), { width, height } = canvas;
  const hue = Math.random() * 360, sky = pen.createLinearGradient(0, 0, 0, height);
  sky.addColorStop(0, `hsl(${hue} 60% 35%)`);
  sky.addColorStop(1, `hsl(${hue + 50} 80% 75%)`);
  pen.fillStyle = sky;
  pen.fillRect(0, 0, width, height);
  pen.fillStyle = "#fff3d0";
  pen.beginPath();
  pen.arc(width * (0.2 + 0.6 * Math.random()), height * 0.3, 40, 0, 7);
  pen.fill();
  for (let hill = 0; hill < 3; hill++) {
    const wave = 0.006 + 0.01 * Math.random(), phase = 6 * Math.random();
    pen.fillStyle = `hsl(${hue + 100} 40% ${40 - 12 * hill}%)`;
    pen.beginPath();
    pen.moveTo(0, height);
    for (let x = 0; x <= width; x += 4) pen.lineTo(x, height * (0.55 + 0.14 * hill) + 40 * Math.sin(x * wave + phase));
    pen.lineTo(width, height);
    pen.fill();
  }
  canvas.toBlob(choose, "image/jpeg", 0.85);
  if (!$("title").value) $("title").value = "Evening no. " + Math.floor(100 + 900 * Math.random());
}

/* create -> form -> straight to the store -> confirm */
async function send(event) {
  event.preventDefault();
  const say = (text, bad) => { $("notice").textContent = text; $("notice").className = bad ? "bad" : ""; };
  const owner = $("owner").value, who = `?owner=${encodeURIComponent(owner)}`, id = crypto.randomUUID(), blob = picture;
  $("send").disabled = true;
  try {
    say("Creating…");
    await ask("POST", "/images", { id, owner, title: $("title").value });
    mine.set(id, { local: URL.createObjectURL(blob) });
    const { data: ticket } = await ask("POST", `/images/${id}/upload${who}`);
    say("Uploading straight to the store…");
    const form = new FormData();
    for (const [name, value] of Object.entries(ticket.fields)) form.append(name, value);
    form.append("file", blob, "upload.jpg");
    const stored = await fetch(ticket.url, { method: "POST", body: form });
    if (!stored.ok) throw new Error(`the store refused the upload: ${stored.status}`);
    say("Confirming…");
    await ask("POST", `/images/${id}/confirm${who}`, { token: ticket.token });
    say("Accepted. A worker makes it sepia now.");
    $("title").value = "";
    $("preview").hidden = true;
    picture = null;
    await list();
    follow(id);
  } catch (error) {
    say(error.message, true);
    $("send").disabled = !picture;
  }
}

async function follow(id) {
  for (let turn = 0; turn < 60; turn++) {
    const { data, source } = await ask("GET", `/images/${id}?owner=${encodeURIComponent($("owner").value)}`);
    show({ ...data, source });
    if (data.state === "processed") return refreshTimeline();
    await pause(700);
  }
}

async function show(image) {
  const known = mine.get(image.id) || {};
  mine.set(image.id, known);
  let card = document.querySelector(`article[data-id="${image.id}"]`);
  if (!card) {
    card = $("card").content.firstElementChild.cloneNode(true);
    card.dataset.id = image.id;
    $("images").querySelector(".empty")?.remove();
    $("images").prepend(card);
  }
  card.querySelector("h3").textContent = image.title;
  card.querySelectorAll(".steps li").forEach((step, index) => step.classList.toggle("done", index <= image.version));
  if (image.source) card.querySelector(".source").textContent = `state read from: ${image.source}`;
  const picture = card.querySelector("img");
  if (image.state === "processed" && !known.result) {
    known.result = "asked";
    try {
      const { data } = await ask("GET", `/images/${image.id}/result?owner=${encodeURIComponent(image.owner)}`);
      picture.src = known.result = data.url;
    } catch { known.result = null; }
  } else if (!known.result && known.local) picture.src = known.local;
}

async function list() {
  const { data, source } = await ask("GET", `/images?owner=${$("owner").value}`, null, 1000);
  $("listed").textContent = `list read from ${source}`;
  for (const image of data.images.slice(0, 24).reverse()) await show(image);
}

async function refreshTimeline() {
  try {
    const { data } = await ask("GET", `/users/${$("owner").value}/timeline`, null, 500);
    $("shard").textContent = `from shard ${data.shard}`;
    $("timeline").replaceChildren(...data.events.slice(-8).reverse().map((each) => {
      const row = document.createElement("li"), time = document.createElement("time");
      time.textContent = new Date(1000 * each.at).toLocaleTimeString();
      row.append(time, `${each.what} ${each.image_id.slice(0, 8)}`);
      return row;
    }));
  } catch {
    $("shard").textContent = "its shard does not answer now";
  }
}

async function parts() {
  try {
    const { checks } = await (await fetch("/parts")).json();
    $("parts").replaceChildren(...checks.map(({ name, status, note }) => {
      const row = document.createElement("li"), said = document.createElement("span");
      row.className = status;
      said.textContent = note;
      row.append(name, said);
      return row;
    }));
  } catch { $("parts").textContent = "This web process does not answer."; }
}

const quietly = (task) => task().catch(() => {});
$("sample").onclick = paint;
$("file").onchange = () => $("file").files[0] && choose($("file").files[0]);
$("create").onsubmit = send;
$("owner").onchange = () => { $("images").replaceChildren(); mine.clear(); quietly(list); refreshTimeline(); };
setInterval(parts, 1500);
setInterval(() => quietly(list), 4000);
setInterval(refreshTimeline, 5000);
parts();
quietly(list);
refreshTimeline();
if (location.hash === "#paint") { // paints one and sends it by itself, for a picture of this page
  paint();
  setTimeout(() => $("create").requestSubmit(), 800);
}
