"use strict";
// Texts from the server and names of files are set as textContent, never as HTML.
const find = (id) => document.getElementById(id);
const [drop, files, explain, status, answers] = ["drop", "files", "explain", "status", "answers"].map(find);
const SHOWN = 20; // classes of one answer
let key = sessionStorage.getItem("key") || "";
let limits = { max_images: 1, max_explained: 1 };
let rule = "";
let things = "images"; // or videos, where the model answers clips
let asked = 0;
const playing = []; // addresses of videos on the page: read while they play

const headers = () => (key ? { Authorization: `Bearer ${key}` } : {});
const percent = (value) => `${(100 * value).toFixed(1)} %`;

function say(text, bad = false) {
  status.textContent = text;
  status.className = bad ? "bad" : "";
}

async function ask(path, options = {}) {
  const response = await fetch(path, { ...options, headers: headers() });
  const said = await response.json();
  if (response.status === 401) {
    find("locked").hidden = false;
    find("key").focus();
  }
  if (!response.ok) {
    const each = (said.images || []).map((one) => `${one.name}: ${one.reason}`);
    throw new Error(each.length > 1 ? each.join("\n") : said.reason);
  }
  return said;
}

async function describe() {
  const said = await ask("model");
  const model = said.model;
  limits = said.limits;
  rule = model.threshold === null ? "" : `; ${model.classes[1]} is the answer from ${percent(model.threshold)} on`;
  find("locked").hidden = true;
  things = model.frames > 1 ? "videos" : "images";
  find("wanted").textContent = `Drop ${things} here`;
  if (model.answer === "mask") {
    explain.checked = true; // a mask without its image says little
    explain.parentElement.lastChild.textContent = " show the image under its mask";
  }
  files.accept = model.frames > 1 ? "video/*,image/gif" : "image/*";
  find("title").textContent = model.classes.length <= 4 ? `${model.classes.join(" or ")}?` : `${model.classes.length} classes`;
  const run = model.run_id ? `, MLflow run ${model.run_id.slice(0, 8)}` : "";
  find("origin").textContent = `${model.net} (${model.variant}), trained on ${model.data}${run}, ${model.digest.slice(0, 19)}`;
  find("limits").textContent =
    `up to ${limits.max_images} ${things}, ${limits.max_body_mb} MB together, ${limits.max_megapixels} megapixels each` +
    (model.frames > 1 ? `, ${limits.max_seconds} s long` : "");
}

function show(file, one) {
  const made = find("answer").content.cloneNode(true);
  const get = (selector) => made.querySelector(selector);
  const film = file.type.startsWith("video/");
  const image = get(film ? "video.image" : "img.image");
  get(film ? "img.image" : "video.image").remove();
  image.hidden = false;
  image.src = URL.createObjectURL(file);
  image.title = one.name;
  if (!film) image.alt = one.name;
  if (film) playing.push(image.src);
  else image.onload = image.onerror = () => URL.revokeObjectURL(image.src);
  get("figcaption").textContent = one.name;
  const shares = one.probabilities || one.shares;
  const sorted = Object.entries(shares).sort((a, b) => b[1] - a[1]);
  get("h2").textContent = one.mask ? `mostly ${sorted[0][0]}, ${percent(one.confidence)} sure` : `${one.decision}, ${percent(one.probability)}`;
  get(".file").textContent = `${one.file.format}, ${one.file.width} x ${one.file.height} px, ${one.file.mode}` +
    (one.file.seconds ? `, ${one.file.seconds} s` : "");
  if (one.heat_map) {
    const map = get(".map");
    map.hidden = false;
    map.querySelector("img").src = `data:image/png;base64,${one.heat_map.png}`;
    map.querySelector("figcaption").textContent = `what speaks for it (${one.heat_map.method}), as the net saw it`;
  }
  if (one.overlay) {
    const map = get(".map");
    map.hidden = false;
    map.querySelector("img").src = `data:image/png;base64,${one.overlay}`;
    map.querySelector("figcaption").textContent = "the image under its mask";
  }
  get("caption").textContent = one.mask ? `Share of the pixels${rule}` : `Calibrated probabilities${rule}`;
  for (const [name, value] of sorted.slice(0, SHOWN)) {
    const row = get("tbody").insertRow();
    row.className = name === one.decision ? "chosen" : "";
    row.insertCell().textContent = name;
    const meter = document.createElement("meter");
    meter.value = value;
    meter.textContent = percent(value);
    row.insertCell().append(meter);
    const number = row.insertCell();
    number.className = "n";
    number.textContent = percent(value);
  }
  return made;
}

async function predict(chosen) {
  const images = [...chosen];
  if (!images.length) return;
  const own = ++asked;
  const body = new FormData();
  for (const file of images) body.append("images", file, file.name || "pasted");
  const maps = explain.checked && images.length <= limits.max_explained;
  answers.replaceChildren();
  for (const address of playing.splice(0)) URL.revokeObjectURL(address);
  say(images.length === 1 ? "asking ..." : `asking about ${images.length} ${things} ...`);
  try {
    const said = await ask(`predict?explain=${maps}`, { method: "POST", body });
    if (own !== asked) return; // a later image was dropped meanwhile
    answers.replaceChildren(...said.predictions.map((one, at) => show(images[at], one)));
    say(explain.checked && !maps ? `heat maps are made for up to ${limits.max_explained} ${things} at a time` : "");
  } catch (fault) {
    if (own === asked) say(fault instanceof TypeError ? "the server cannot be reached" : fault.message, true);
  }
}

files.addEventListener("change", () => {
  predict(files.files).then(() => { files.value = ""; });
});
drop.addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); files.click(); }
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") predict(event.dataTransfer.files);
  });
}
document.addEventListener("paste", (event) => predict(event.clipboardData.files));
find("locked").addEventListener("submit", (event) => {
  event.preventDefault();
  key = find("key").value;
  sessionStorage.setItem("key", key);
  describe().then(() => say(""), (fault) => say(fault.message, true));
});
describe().catch((fault) => say(fault instanceof TypeError ? "the server cannot be reached" : fault.message, true));
