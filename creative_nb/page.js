// The page on which people label images: the module that anywidget loads. What to draw comes from Python (page.py);
// the browser draws it and reports what was pressed.

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
const anew = (text) => {
  const here = new URL(location.href);
  here.searchParams.delete("annotator");
  return make("a", { href: here.href }, text);
};
const inWords = (seconds) => {
  const minutes = Math.round(seconds / 60);
  if (seconds < 50) return "less than a minute left";
  return minutes < 90 ? `about ${Math.max(1, minutes)} min left` : `about ${Math.round(minutes / 30) / 2} h left`;
};

// Sending: one message at a time. Until its receipt has come, further presses are ignored. The next image is drawn only
// then, so what the annotator has left behind is saved. Without a receipt for five seconds the connection counts as
// lost, and the page says so.
const PATIENCE = 5000;
const talk = (model, changed) => {
  const self = { pending: null, lost: false };
  const name = Math.random().toString(36).slice(2);
  let count = 0, timer;
  const receipt = () => {
    if (self.pending && model.get("view").reply === self.pending.reply) {
      clearTimeout(timer);
      Object.assign(self, { pending: null, lost: false });
    }
    changed();
  };
  self.send = (act, more = {}) => {
    if (self.pending) return;
    self.pending = { do: act, at: model.get("view").at, reply: `${name}-${++count}`, ...more };
    timer = setTimeout(() => { self.lost = true; changed(); }, PATIENCE);
    changed();
    try { model.send(self.pending); } catch (error) { console.warn(error); self.lost = true; changed(); }
  };
  self.stop = () => { clearTimeout(timer); model.off("change:view", receipt); };
  model.on("change:view", receipt);
  return self;
};

// Instructions: the same text on the first screen and behind the key "?".
const meanings = (intro) => make("dl", { class: "meanings" }, ...intro.options.map((option, i) =>
  make("div", {}, make("dt", {}, key(String(i + 1)), option.text), make("dd", {}, option.meaning))));
const references = (intro) => intro.references.length === 0 ? "" : make("section", { class: "references" },
  make("h2", {}, "Training images"),
  make("p", {}, "The computer learned from images like these. Look at them first: novel means different from these."),
  make("div", { role: "img", "aria-label": `${intro.references.length} training images` },
    ...intro.references.map((src) => make("img", { src, alt: "" }))));
const shortcuts = (intro, ...more) => make("p", { class: "shortcuts" },
  ...[["1", "to"], [String(intro.options.length), "answer"], ["←", "back"], ["→", "forward"], ["U", "undo"],
    ["?", "instructions"]].map(([name, text]) => make("span", {}, make("kbd", {}, name), " ", text)), ...more);
const lead = (intro) => make("p", { class: "lead" },
  `You will see ${intro.total} images made by a computer, one at a time. Choose for each the answer that fits best. `,
  "There is no right or wrong, and no hurry: you can go back and change an answer, or stop and go on another day.");

// First screen. A screen is an element, a map of its keys, and a function that draws a view.
const startScreen = (intro, { send }) => {
  const input = make("input", { type: "text", id: `annotator-${Math.random()}`, maxlength: 60, required: true,
                                autocomplete: "off", spellcheck: "false", autocapitalize: "off" });
  const start = make("button", { type: "submit", class: "primary" }, "Start");
  const hint = make("p", { class: "hint", role: "status" });
  let asked = null, count = 0;
  const known = () => input.value === asked;
  const ask = () => {
    hint.textContent = !known() ? "With the same name you can go on later where you stopped."
      : `“${asked}” has ${count} ${count === 1 ? "answer" : "answers"} already. ` +
        `If that is you, go on; if not, please choose another name.`;
    hint.classList.toggle("asks", known());
    start.textContent = known() ? "Go on" : "Start";
  };
  input.addEventListener("input", ask);
  const submit = (e) => { e.preventDefault(); send("start", { name: input.value, known: known() }); };
  const form = make("form", { onsubmit: submit },
    make("label", { for: input.id }, "Your name or code"), make("div", { class: "row" }, input, start), hint);
  const text = make("div", { class: "text" }, make("h1", {}, "How creative are these images?"),
    lead(intro), meanings(intro));
  const element = make("section", { class: "start" }, text, references(intro), form);
  const show = (view) => {
    if (!input.value) input.value = view.name;
    [asked, count] = view.known ? [view.name, view.known] : [null, 0];
    ask();
  };
  const focus = () => { if (matchMedia("(hover: hover)").matches) input.focus({ preventScroll: true }); };
  return { element, show, keys: {}, focus };
};

// An image fills the space it has. Each of its pixels becomes a square of a whole number of screen pixels, so none is
// blurred and none is wider than another; only an image larger than the screen is reduced, smoothly. The clock starts
// when it is drawn. A press within a quarter of a second belongs to the image before and is ignored.
const TOO_FAST = 250;
const picture = () => {
  const img = make("img", {}), element = make("div", { class: "stage", tabindex: -1 }, img);
  let shown = null, at = null;
  const fit = () => {
    const { naturalWidth: w, naturalHeight: h } = img, ratio = window.devicePixelRatio || 1;
    if (!w) return;
    const room = ratio * Math.min(element.clientWidth / w, element.clientHeight / h);
    const scale = (room < 1 ? room : Math.floor(room)) / ratio;
    const imageRendering = room < 1 ? "auto" : "pixelated";
    Object.assign(img.style, { width: `${w * scale}px`, height: `${h * scale}px`, imageRendering });
  };
  const show = (view) => {
    if (view.at === at) return;
    [at, shown, img.src, img.alt] = [view.at, null, view.image, `Image ${view.at + 1}`];
    const drawn = () => { if (view.at === at) shown = performance.now(); };
    img.decode().catch(() => {}).then(() => { fit(); requestAnimationFrame(drawn); });
  };
  const seconds = () =>
    shown === null || performance.now() - shown < TOO_FAST ? null : (performance.now() - shown) / 1000;
  const forget = () => { at = null; };
  const watch = new ResizeObserver(fit);
  watch.observe(element);
  return { element, show, seconds, forget, stop: () => watch.disconnect() };
};

// The screen on which images are labelled.
const imageScreen = (intro, { send, help }) => {
  const shown = picture(), place = make("span", { "aria-live": "polite" }), left = make("span");
  const who = make("span", { class: "who" }), bar = make("div", { class: "done" });
  const range = { "aria-label": "Answered", "aria-valuemin": 0, "aria-valuemax": intro.total };
  const meter = make("div", { class: "meter", role: "progressbar", ...range }, bar);
  const answer = (label) => {
    const seconds = shown.seconds();
    if (seconds !== null) send("answer", { label, seconds });
  };
  const answers = intro.options.map((option, i) => make("button",
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
    make("header", {}, meter, make("p", {}, place, who, left)), shown.element,
    make("div", { class: "answers", role: "group", "aria-label": "Your answer" }, ...answers),
    make("nav", { "aria-label": "Moving about" }, back, forward, undo, more));
  const show = (view) => {
    shown.show(view);
    place.textContent = `Image ${view.at + 1} of ${intro.total}`;
    who.textContent = view.name;
    left.textContent = [`${view.answered} done`, ...(view.left === null ? [] : [inWords(view.left)])].join(", ");
    meter.setAttribute("aria-valuenow", view.answered);
    bar.style.width = `${100 * view.answered / intro.total}%`;
    answers.forEach((button, i) => { button.ariaPressed = String(intro.options[i].label === view.label); });
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
const doneScreen = (intro, { send }) => {
  const heading = make("h1", { tabindex: -1 }, "Thank you"), text = make("p", { class: "lead" });
  const back = make("button", { type: "button", onclick: () => send("go", { by: -1 }) }, key("←"), " Go back");
  const element = make("section", { class: "end" }, heading, text, make("div", { class: "row" }, back));
  if (intro.page) back.after(anew("Next annotator"));
  const show = (view) => {
    text.textContent =
      `All ${intro.total} images have your answer, and every answer is saved. You can close this page.`;
  };
  const keys = { ArrowLeft: () => back.click(), Backspace: () => back.click(), u: () => send("undo") };
  return { element, show, keys, focus: () => heading.focus({ preventScroll: true }) };
};

// Keys. A held key counts once; keys with Ctrl, Alt or the Mac's command key belong to the browser; what is typed into
// the name field is text. On a page of its own the keys work wherever the focus is. In JupyterLab they work while the
// widget has the focus, and go no further, or "1" would also make a heading of the cell: JupyterLab listens before the
// widget can, and skips elements marked data-lm-suppress-shortcuts.
const listen = (root, page, keysNow) => {
  const pressed = (event) => {
    if (!page) event.stopPropagation();
    if (event.repeat && ["Enter", " "].includes(event.key)) event.preventDefault();
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input")) return;
    const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.shiftKey ? "" : event.code);
    const act = keysNow()[digit ? digit[1] : event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    if (!event.repeat) act();
  };
  const target = page ? document : root;
  target.addEventListener("keydown", pressed);
  return () => target.removeEventListener("keydown", pressed);
};

// All together. draw is the only function that changes what is seen. Messages to the annotator stand in two regions
// that screen readers follow: what happened, and what went wrong.
const LOST =
  "Not saved: the connection to the server is lost. Reload the page; everything before this image is saved.";
const BUSY = "Not saved yet: the kernel is busy, or gone. If it is gone, run this cell again; " +
  "everything before this image is saved.";
const remember = (name) => {
  const here = new URL(location.href);
  if (here.searchParams.get("annotator") === name) return;
  here.searchParams.set("annotator", name);
  history.replaceState(history.state, "", here);
};
const helpBox = (intro, keys) => make("dialog", { "aria-label": "Instructions" },
  make("form", { method: "dialog" }, make("h2", {}, "Instructions"), make("button", { class: "primary" }, "Close")),
  lead(intro), meanings(intro), shortcuts(intro, make("label", {}, keys, " use these keys")), references(intro),
  intro.page ? make("p", {}, anew("Start under another name")) : "");
const render = ({ model, el }) => {
  const keys = make("input", { type: "checkbox", checked: true });
  keys.addEventListener("change", () => root.classList.toggle("keyless", !keys.checked));
  const intro = model.get("intro"), help = helpBox(intro, keys);
  const notice = make("p", { class: "notice", role: "status" });
  const wrong = make("div", { class: "wrong", role: "alert", hidden: true }), body = make("main", {});
  const about = { class: `creative-annotator ${intro.page ? "page" : "cell"}`, tabindex: -1,
                  "data-lm-suppress-shortcuts": "true" };
  const root = make("div", about, body, notice, wrong, help);
  let screen = null;
  const talking = talk(model, () => draw());
  const tools = { send: talking.send, help: () => help.showModal() };
  const screens = { start: startScreen(intro, tools), image: imageScreen(intro, tools),
                    done: doneScreen(intro, tools) };
  const enter = (name) => {
    const focused = intro.page || root.contains(document.activeElement);
    if (screen) screens[screen].hide?.();
    screen = name;
    body.replaceChildren(screens[name].element);
    if (focused) screens[name].focus();
  };
  const complain = (text) => {
    if (wrong.dataset.text === text) return;
    wrong.dataset.text = text;
    wrong.hidden = !text;
    wrong.replaceChildren(text);
    const onclick = () => location.reload();
    if (talking.lost && intro.page) wrong.append(make("button", { type: "button", onclick }, "Reload"));
  };
  const draw = () => {
    const view = model.get("view"), saving = talking.pending?.do === "answer";
    if (view.screen !== screen) enter(view.screen);
    screens[screen].show(view);
    root.classList.toggle("saving", saving);
    notice.textContent = talking.lost ? "" : saving ? "Saving …" : view.notice;
    complain(!talking.lost ? view.error : intro.page ? LOST : BUSY);
    if (intro.page && view.screen !== "start") remember(view.name);
  };
  const silent = listen(root, intro.page, () => (help.open || !keys.checked ? {} : screens[screen].keys));
  const appeared = new ResizeObserver(() => {
    if (!root.clientHeight || !intro.page) return;
    appeared.disconnect();
    screens[screen].focus();
  });
  appeared.observe(root);
  el.replaceChildren(root);
  draw();
  return () => { silent(); appeared.disconnect(); talking.stop(); screens.image.stop(); };
};
export default { render };
