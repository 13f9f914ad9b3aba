// The page on which people label images. What to draw comes from Python (page.py); the browser draws it and reports
// what was pressed.

// make builds an element; its children are set as text, so nothing that comes from a name or an option becomes markup.
const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
};
const key = (name) => make("kbd", { "aria-hidden": "true" }, name);
const inWords = (seconds) => {
  const minutes = Math.round(seconds / 60);
  if (seconds < 50) return "less than a minute left";
  return minutes < 90 ? `about ${Math.max(1, minutes)} min left` : `about ${Math.round(minutes / 30) / 2} h left`;
};

// Sending: one message at a time. Until its answer has come, further presses are ignored. The next image is drawn only
// then, so what the annotator has left behind is saved. A message without an answer may be sent again: it says for
// which position it is meant, so it counts once.
const PATIENCE = 10000;
const talk = (changed) => {
  const self = { view: null, intro: null, pending: null, lost: false };
  const tab = Math.random().toString(36).slice(2);
  let count = 0;
  self.send = async (act, more = {}) => {
    if (self.pending) return;
    self.pending = { do: act, at: self.view ? self.view.at : null, reply: `${tab}-${++count}`, tab, ...more };
    changed();
    const options = { method: "POST", headers: { "Content-Type": "application/json" }, credentials: "same-origin",
                      body: JSON.stringify(self.pending), signal: AbortSignal.timeout(PATIENCE) };
    try {
      const answer = await fetch("talk", options);
      if (!answer.ok) throw new Error(answer.status);
      const got = await answer.json();
      if (self.view && !got.view.screen) got.view = { ...self.view, notice: "", ...got.view };  // only what went wrong
      Object.assign(self, { lost: false }, got);
    } catch (error) { self.lost = true; }
    self.pending = null;
    changed();
  };
  return self;
};
const joining = () => ({ join: sessionStorage.getItem("join") || "" });
const COMES_AS = "PROLIFIC_PID";  // a name that a recruiting platform puts into the address
const device = () => ({
  time_zone: Intl.DateTimeFormat().resolvedOptions().timeZone || "",
  device: `${matchMedia("(pointer: coarse)").matches ? "touch" : "mouse"}, ${innerWidth} x ${innerHeight}, ` +
    `ratio ${devicePixelRatio}, ${navigator.language}`,
});

// Instructions: the same text on the first screen and behind the key "?".
const meanings = (options) => make("dl", { class: "meanings" }, ...options.map((option, i) =>
  make("div", {}, make("dt", {}, key(String(i + 1)), option.text), make("dd", {}, option.meaning))));
const training = (intro) => intro.training.length === 0 ? "" : make("section", { class: "references" },
  make("h2", {}, "Training images"), make("p", {}, intro.references),
  make("div", { role: "img", "aria-label": `${intro.training.length} training images` },
    ...intro.training.map((src) => make("img", { src, alt: "" }))));
const example = (intro) => !intro.example ? "" : make("section", { class: "example" },
  make("h2", {}, "An example"), make("p", {}, intro.example));
const shortcuts = (options, ...more) => make("p", { class: "shortcuts" },
  ...[["1", "to"], [String(options.length), "answer"], ["←", "back"], ["→", "forward"], ["U", "undo"],
    ["?", "instructions"]].map(([name, text]) => make("span", {}, make("kbd", {}, name), " ", text)), ...more);
const lead = (intro) => make("p", { class: "lead" }, intro.lead);

// First screen. A screen is an element, a map of its keys, and a function that draws a view.
const startScreen = (intro, options, { send }) => {
  const input = make("input", { type: "text", id: "annotator", maxlength: 60, autocomplete: "off", spellcheck: "false",
                                autocapitalize: "off" });
  const name = make("div", { class: "field" }, make("label", { for: input.id }, "Your name or code"), input,
    make("p", { class: "hint" }, "You can stop and go on later, in this browser."));
  const tick = make("input", { type: "checkbox", id: "consent" });
  const consent = make("label", { class: "consent", for: tick.id }, tick, make("span", {}, intro.consent));
  let enrol = false;
  const submit = (e) => {
    e.preventDefault();
    if (enrol) send("enrol", { name: input.value, consent: tick.checked, ...joining(), ...device() });
    else send("start", { consent: tick.checked });
  };
  const form = make("form", { onsubmit: submit }, name, intro.consent ? consent : "",
    make("button", { type: "submit", class: "primary" }, "Start"));
  const text = make("div", { class: "text" }, make("h1", {}, intro.title), lead(intro), meanings(options),
    example(intro));
  const element = make("section", { class: "start" }, text, training(intro), form);
  const show = (view) => {
    enrol = view.enrol;
    name.hidden = !enrol;
    if (enrol && !input.value) input.value = sessionStorage.getItem(COMES_AS) || "";
    input.required = enrol;
    consent.hidden = !view.consent;
    tick.required = view.consent;
  };
  const focus = () => { if (enrol && matchMedia("(hover: hover)").matches) input.focus({ preventScroll: true }); };
  const hide = () => { form.reset(); sessionStorage.removeItem(COMES_AS); };
  return { element, show, keys: {}, focus, hide };
};

// Who comes without a link.
const closedScreen = () => {
  const heading = make("h1", { tabindex: -1 }, "Please open your link");
  const text = "You take part by a link of your own. Please open it as you got it, or ask those who run this study.";
  const element = make("section", { class: "end" }, heading, make("p", { class: "lead" }, text));
  return { element, show: () => {}, keys: {}, focus: () => heading.focus({ preventScroll: true }) };
};

// Images fill the space they have. Each pixel of a small one becomes a square of a whole number of screen pixels, so none
// is blurred and none is wider than another; photographs are scaled smoothly. The clock starts when all are drawn, and
// tells nothing if the page was out of sight meanwhile. A press within a quarter of a second belongs to the image before
// and is not counted, which it is told.
const TOO_FAST = 250;
const LARGEST = 3;
const picture = (panels) => {
  const imgs = Array.from({ length: panels }, () => make("img", {}));
  const cells = imgs.map((img, i) => make("div", { class: "panel" }, img,
    panels > 1 ? make("span", { class: "tag" }, "AB"[i]) : ""));
  const element = make("div", { class: `stage panels-${panels}`, tabindex: -1 }, ...cells);
  let shown = null, at = null, smooth = false, hidden = false, scale = null;
  const fitOne = (img, cell) => {
    const { naturalWidth: w, naturalHeight: h } = img, ratio = window.devicePixelRatio || 1;
    if (!w) return;
    const room = ratio * Math.min(cell.clientWidth / w, cell.clientHeight / h);
    scale = smooth ? Math.min(room, LARGEST * ratio) : room < 1 ? room : Math.floor(room);
    const imageRendering = smooth || room < 1 ? "auto" : "pixelated";
    Object.assign(img.style, { width: `${w * scale / ratio}px`, height: `${h * scale / ratio}px`, imageRendering });
  };
  const fit = () => imgs.forEach((img, i) => fitOne(img, cells[i]));
  const show = (view) => {
    if (view.at === at) return;
    [at, shown, smooth, hidden] = [view.at, null, view.smooth, document.hidden];
    imgs.forEach((img, i) => {
      [img.src, img.alt] = [view.images[i], panels > 1 ? `Panel ${"AB"[i]}` : `Image ${view.at + 1}`];
    });
    const drawn = () => { if (view.at === at) shown = performance.now(); };
    Promise.all(imgs.map((img) => img.decode().catch(() => {}))).then(() => { fit(); requestAnimationFrame(drawn); });
  };
  const ready = () => shown !== null && performance.now() - shown >= TOO_FAST;
  const seconds = () => (hidden ? null : (performance.now() - shown) / 1000);
  const zoom = () => scale;
  const forget = () => { at = null; };
  const watch = new ResizeObserver(fit), away = () => { hidden = hidden || document.hidden; };
  watch.observe(element);
  document.addEventListener("visibilitychange", away);
  const stop = () => { watch.disconnect(); document.removeEventListener("visibilitychange", away); };
  return { element, show, ready, seconds, zoom, forget, stop };
};

// The screen on which images are labelled.
const imageScreen = (intro, options, { send, help, tell }) => {
  const shown = picture(intro.panels), place = make("span", { "aria-live": "polite" }), left = make("span");
  const who = make("span", { class: "who" }), bar = make("div", { class: "done" });
  const range = { "aria-label": "Answered", "aria-valuemin": 0, "aria-valuemax": intro.total };
  const meter = make("div", { class: "meter", role: "progressbar", ...range }, bar);
  const caption = make("p", { class: "caption" }), told = make("span", { role: "status" });
  const next = make("button", { type: "button", class: "primary", onclick: () => send("go", { by: 1 }) }, "Go on");
  const feedback = make("div", { class: "feedback" }, told, next);
  const answer = (label) => {
    if (shown.ready()) send("answer", { label, seconds: shown.seconds(), zoom: shown.zoom() });
    else tell("Too early to count: please look at the image first.");
  };
  const answers = options.map((option, i) => make("button",
    { type: "button", "aria-keyshortcuts": i + 1, title: option.meaning, onclick: () => answer(option.label) },
    key(String(i + 1)), make("span", {}, option.text)));
  const tool = (text, name, act) => {
    const onclick = (e) => e.currentTarget.ariaDisabled !== "true" && act();
    return make("button", { type: "button", onclick }, key(name), " ", text);
  };
  const back = tool("Back", "←", () => send("go", { by: -1 }));
  const forward = tool("Forward", "→", () => send("go", { by: 1 }));
  const undo = tool("Undo", "U", () => send("undo")), more = tool("Instructions", "?", help);
  const element = make("section", { class: "label" },
    make("header", {}, meter, make("p", {}, place, who, left), caption), shown.element, feedback,
    make("div", { class: "answers", role: "group", "aria-label": "Your answer", style: `--n: ${options.length}` },
      ...answers),
    make("nav", { "aria-label": "Moving about" }, back, forward, undo, more));
  const show = (view) => {
    [caption.textContent, caption.hidden] = [view.caption, !view.caption];
    [told.textContent, feedback.hidden] = [view.feedback, !view.feedback];
    shown.show(view);
    place.textContent = `${view.practice ? "Practice: image" : "Image"} ${view.at + 1} of ${intro.total}`;
    who.textContent = view.name;
    left.textContent = [`${view.answered} done`, ...(view.left === null ? [] : [inWords(view.left)])].join(", ");
    meter.setAttribute("aria-valuenow", view.answered);
    bar.style.width = `${100 * view.answered / intro.total}%`;
    answers.forEach((button, i) => { button.ariaPressed = String(options[i].label === view.label); });
    const off = [[back, view.at === 0], [forward, !view.label], [undo, view.answered === 0]];
    for (const [button, state] of off) button.ariaDisabled = String(state);
  };
  const keys = Object.fromEntries(answers.map((button, i) => [String(i + 1), () => button.click()]));
  Object.assign(keys, { ArrowLeft: () => back.click(), Backspace: () => back.click() });
  Object.assign(keys, { ArrowRight: () => forward.click(), u: () => undo.click(), "?": help });
  const focus = () => shown.element.focus({ preventScroll: true });
  return { element, show, keys, stop: shown.stop, hide: shown.forget, focus };
};

// The end still lets one go back.
const leave = (send) => make("button", { type: "button", onclick: () => send("leave", joining()) }, "Another person");
const doneScreen = (intro, options, { send }) => {
  const heading = make("h1", { tabindex: -1 }, "Thank you"), code = make("strong");
  const text = make("p", { class: "lead" },
    `All ${intro.total} images have your answer, and every answer is saved. You can close this page.`);
  const back = make("button", { type: "button", onclick: () => send("go", { by: -1 }) }, key("←"), " Go back");
  const element = make("section", { class: "end" }, heading, text, intro.thanks ? make("p", {}, intro.thanks) : "",
    make("p", {}, "Your completion code: ", code), make("div", { class: "row" }, back, leave(send)));
  const show = (view) => { code.textContent = view.code; };
  const keys = { ArrowLeft: () => back.click(), Backspace: () => back.click(), u: () => send("undo") };
  return { element, show, keys, focus: () => heading.focus({ preventScroll: true }) };
};

// Keys. A held key counts once; keys with Ctrl, Alt or the Mac's command key belong to the browser; what is typed into
// the name field is text.
const listen = (keysNow) => document.addEventListener("keydown", (event) => {
  if (event.repeat && ["Enter", " "].includes(event.key)) event.preventDefault();
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input")) return;
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.shiftKey ? "" : event.code);
  const act = keysNow()[digit ? digit[1] : event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act) return;
  event.preventDefault();
  if (!event.repeat) act();
});

// All together. draw is the only function that changes what is seen. Messages to the annotator stand in two regions
// that screen readers follow: what happened, and what went wrong.
const LOST = "Not saved: the connection to the server is lost. Try again in a moment; everything before this is saved.";
const helpBox = (intro, options, keys, send) => make("dialog", { "aria-label": "Instructions" },
  make("form", { method: "dialog" }, make("h2", {}, "Instructions"), make("button", { class: "primary" }, "Close")),
  lead(intro), meanings(options), example(intro),
  shortcuts(options, make("label", {}, keys, " use these keys")), training(intro), leave(send));
const keys = make("input", { type: "checkbox", checked: true });
keys.addEventListener("change", () => root.classList.toggle("keyless", !keys.checked));
const notice = make("p", { class: "notice", role: "status" });
const wrong = make("div", { class: "wrong", role: "alert", hidden: true }), body = make("main", {});
const root = make("div", { class: "creative-annotator", tabindex: -1 }, body, notice, wrong);
let screens = {}, screen = null, help = null, reversed = null;
const build = (intro) => {
  const options = reversed ? [...intro.options].reverse() : intro.options;
  screens.image?.stop();
  help?.remove();
  help = helpBox(intro, options, keys, (...what) => { help.close(); talking.send(...what); });
  const tools = { send: talking.send, help: () => help.showModal(), tell: (text) => { notice.textContent = text; } };
  screens = { start: startScreen(intro, options, tools), image: imageScreen(intro, options, tools),
              done: doneScreen(intro, options, tools), closed: closedScreen() };
  screen = null;
  root.append(help);
};
const enter = (name) => {
  screens[screen]?.hide?.();
  screen = name;
  body.replaceChildren(screens[name].element);
};
const complain = (text) => {
  if (wrong.dataset.text === text) return;
  wrong.dataset.text = text;
  wrong.hidden = !text;
  wrong.replaceChildren(make("span", {}, text), make("button", { type: "button", onclick: () => location.reload() }, "Reload"));
};
const draw = () => {
  const { view, intro, pending, lost } = talking, saving = pending?.do === "answer";
  root.classList.toggle("saving", saving);
  complain(lost ? LOST : view ? view.error : "");
  if (!view || !intro || !view.screen) return;
  if (reversed !== view.reversed || !screens.start) { reversed = view.reversed; build(intro); }
  const changes = view.screen !== screen;
  if (changes) enter(view.screen);
  screens[screen].show(view);
  if (changes) screens[screen].focus();
  notice.textContent = lost ? "" : saving ? "Saving …" : view.notice;
};
const talking = talk(() => draw());
listen(() => (!screen || help.open || !keys.checked ? {} : screens[screen].keys));
document.body.replaceChildren(root);

// The code of a link is exchanged for a session at once, and leaves the address and the history, as a name does.
const code = location.hash.slice(1);
const comesAs = new URLSearchParams(location.search).get(COMES_AS);
if (comesAs) sessionStorage.setItem(COMES_AS, comesAs.slice(0, 60));
history.replaceState(null, "", location.pathname);
if (code.startsWith("join.")) sessionStorage.setItem("join", code.slice(5));
if (code && !code.startsWith("join.")) talking.send("enter", { code, ...device() });
else talking.send("look", joining());

// A link that is opened where the page is already there changes the address alone: begin anew, so that it counts.
addEventListener("hashchange", () => location.reload());
