"use strict";
// Texts from the server and names of files are set as textContent, never as HTML.
// The page knows no task: it draws each field of a prediction by its kind, which the API's description (OpenAPI) states.
const find = (id) => document.getElementById(id);
const [drop, files, explain, status, results] = ["drop", "files", "explain", "status", "results"].map(find);
const ROWS = 20; // of one table
let key = sessionStorage.getItem("key") || "";
let limits = { max_images: 1, max_explained: 1 };
let rule = ""; // how the decision follows from the probabilities
let fields = []; // of one prediction: { name, text, kind }
let noun = "images"; // or videos, where the model takes clips
let requests = 0;
const playing = []; // addresses of videos on the page: read while they play

const headers = () => (key ? { Authorization: `Bearer ${key}` } : {});
const percent = (value) => `${(100 * value).toFixed(1)} %`;

function report(text, bad = false) {
  status.textContent = text;
  status.className = bad ? "bad" : "";
}

async function request(path, options = {}) {
  const response = await fetch(path, { ...options, headers: headers() });
  const body = await response.json();
  if (response.status === 401) {
    find("locked").hidden = false;
    find("key").focus();
  }
  if (!response.ok) {
    const reasons = (body.images || []).map((image) => `${image.name}: ${image.reason}`);
    throw new Error(reasons.length > 1 ? reasons.join("\n") : body.reason);
  }
  return body;
}

// The fields of one prediction, from the schema of /predict's response.
function fieldsOf(api) {
  const follow = (schema) => {
    const { $ref, anyOf, ...own } = schema; // what stands beside them holds, too
    const inner = $ref ? api.components.schemas[$ref.split("/").pop()] : (anyOf || []).find((option) => option.type !== "null");
    return inner ? { ...follow(inner), ...own } : schema;
  };
  const kindOf = (schema) => {
    if ((schema.contentMediaType || "").startsWith("image/")) return `data:${schema.contentMediaType};base64,`;
    if (schema.type === "array") return "list";
    if (schema.additionalProperties) return follow(schema.additionalProperties).type === "object" ? "quantities" : "shares";
    return schema.type; // string, number, integer, or an object with fields of its own
  };
  const listed = (schema, path = []) => Object.entries(schema.properties).flatMap(([name, property]) => {
    const inner = follow(property);
    const field = { path: [...path, name], name, text: inner.description || "", kind: kindOf(inner) };
    return inner.properties ? listed(inner, field.path).map((part) => ({ ...part, text: inner.description || part.text })) : [field];
  });
  const response = follow(api.paths["/predict"].post.responses["200"].content["application/json"].schema);
  const prediction = follow(follow(response.properties.predictions).items);
  return listed(prediction).filter(({ path: [name] }) => name !== "name" && name !== "file");
}

async function describe() {
  const [description, api] = await Promise.all([request("model"), request("openapi.json")]);
  const model = description.model;
  limits = description.limits;
  fields = fieldsOf(api);
  const two = model.threshold !== null && model.classes.length === 2;
  rule = two ? `; ${model.classes[1]} is predicted from ${percent(model.threshold)} on` : "";
  find("locked").hidden = true;
  noun = model.frames > 1 ? "videos" : "images";
  find("wanted").textContent = `Drop ${noun} here`;
  // what `explain` adds to a prediction is in its description; nothing to choose where it adds nothing
  const extra = fields.find(({ path: [name] }) => name === "heat_map" || name === "overlay");
  explain.checked = Boolean(extra);
  explain.parentElement.hidden = !extra;
  explain.parentElement.lastChild.textContent = extra && extra.path[0] === "overlay" ? " draw the prediction over the image" : " show where the model looked";
  files.accept = model.frames > 1 ? "video/*,image/gif" : "image/*";
  const count = model.classes.length;
  if (count) find("title").textContent = count <= 4 ? `${model.classes.join(" or ")}?` : `${count} classes`;
  const run = model.run_id ? `, MLflow run ${model.run_id.slice(0, 8)}` : "";
  find("origin").textContent = `${model.net} (${model.variant}), trained on ${model.data}${run}, ${model.digest.slice(0, 19)}`;
  find("limits").textContent =
    `up to ${limits.max_images} ${noun}, ${limits.max_body_mb} MB together, ${limits.max_megapixels} megapixels each` +
    (model.frames > 1 ? `, ${limits.max_seconds} s long` : "");
}

const spaced = (name) => name.replaceAll("_", " ");
const quantity = ({ value, unit }) => `${value}${unit ? ` ${unit}` : ""}`;

// The heading: texts, lists of texts, shares by their names, and the first three quantities.
function heading(values) {
  const parts = values.flatMap(({ name, kind, value }) => {
    if (kind === "string") return [value];
    if (kind === "list") return [value.join(", ") || `no ${spaced(name)}`];
    return kind === "number" ? [`${spaced(name)} ${percent(value)}`] : [];
  });
  const quantities = values.filter(({ kind }) => kind === "quantities").flatMap(({ value }) => Object.entries(value));
  return [...parts, ...quantities.slice(0, 3).map(([name, value]) => `${name} ${quantity(value)}`)].join(", ");
}

// Shares by name as bars, the largest first; quantities by name as they are.
function table({ name, text, kind, value }, chosen) {
  const part = document.createElement("table");
  const caption = part.createCaption();
  caption.className = "small";
  caption.textContent = `${spaced(name)}${text ? ` ${text}` : ""}${kind === "shares" ? rule : ""}`;
  const entries = Object.entries(value);
  if (kind === "shares") entries.sort((a, b) => b[1] - a[1]);
  for (const [label, number] of entries.slice(0, ROWS)) {
    const row = part.insertRow();
    row.className = chosen.includes(label) ? "chosen" : "";
    row.insertCell().textContent = label;
    if (kind === "shares") {
      const meter = document.createElement("meter");
      meter.value = number;
      meter.textContent = percent(number);
      row.insertCell().append(meter);
    }
    const cell = row.insertCell();
    cell.className = "n";
    cell.textContent = kind === "shares" ? percent(number) : quantity(number);
  }
  return part;
}

function picture({ name, text, kind, value }) {
  const figure = find("picture").content.cloneNode(true);
  figure.querySelector("img").src = kind + value;
  figure.querySelector("img").alt = spaced(name);
  figure.querySelector("figcaption").textContent = text;
  return figure;
}

function show(file, prediction) {
  const article = find("result").content.cloneNode(true);
  const get = (selector) => article.querySelector(selector);
  const isVideo = file.type.startsWith("video/");
  const image = get(isVideo ? "video.image" : "img.image");
  get(isVideo ? "img.image" : "video.image").remove();
  image.hidden = false;
  image.src = URL.createObjectURL(file);
  image.title = prediction.name;
  if (!isVideo) image.alt = prediction.name;
  if (isVideo) playing.push(image.src);
  else image.onload = image.onerror = () => URL.revokeObjectURL(image.src);
  get("figcaption").textContent = prediction.name;
  get(".file").textContent = `${prediction.file.format}, ${prediction.file.width} x ${prediction.file.height} px, ${prediction.file.mode}` +
    (prediction.file.seconds ? `, ${prediction.file.seconds} s` : "");
  const values = fields
    .map((field) => ({ ...field, value: field.path.reduce((inner, name) => inner && inner[name], prediction) }))
    .filter(({ value }) => value !== null && value !== undefined);
  const isPicture = ({ kind }) => kind && kind.startsWith("data:");
  get(".pictures").append(...values.filter(isPicture).map(picture));
  const own = values.filter((field) => field.path.length === 1);
  get("h2").textContent = heading(own);
  const chosen = own.filter(({ kind }) => kind === "string" || kind === "list").flatMap(({ value }) => value);
  const tables = values.filter(({ kind }) => kind === "shares" || kind === "quantities");
  get(".words").append(...tables.map((field) => table(field, chosen)));
  return article;
}

async function predict(chosen) {
  const images = [...chosen];
  if (!images.length) return;
  const number = ++requests;
  const body = new FormData();
  for (const file of images) body.append("images", file, file.name || "pasted");
  const explained = explain.checked && images.length <= limits.max_explained;
  results.replaceChildren();
  for (const address of playing.splice(0)) URL.revokeObjectURL(address);
  report(images.length === 1 ? "predicting ..." : `predicting ${images.length} ${noun} ...`);
  try {
    const response = await request(`predict?explain=${explained}`, { method: "POST", body });
    if (number !== requests) return; // a later image was dropped meanwhile
    results.replaceChildren(...response.predictions.map((prediction, i) => show(images[i], prediction)));
    report(explain.checked && !explained ? `explanations are made for up to ${limits.max_explained} ${noun} at a time` : "");
  } catch (fault) {
    if (number === requests) report(fault instanceof TypeError ? "the server cannot be reached" : fault.message, true);
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
  describe().then(() => report(""), (fault) => report(fault.message, true));
});
describe().catch((fault) => report(fault instanceof TypeError ? "the server cannot be reached" : fault.message, true));
