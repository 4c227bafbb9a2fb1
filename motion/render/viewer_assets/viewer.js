// Draws the motions of the page on 2-D canvases with an own perspective projection (that of motion/render/camera.py):
// floor and path here, the person by mannequin.js or, without WebGL or on request, as a stick figure.
// One clock and one camera serve all panels. Lengths in metres, y up, angles in radians.

const DATA = JSON.parse(document.getElementById("data").textContent);
const SPEEDS = [0.25, 0.5, 1, 1.5, 2];
const CELL = 0.5; // between two floor lines
const byId = (id) => document.getElementById(id);

const motions = DATA.motions.map(decode);
const nFrames = Math.max(...motions.map((motion) => motion.frames));
const view = {}; // azimuth, elevation, zoom, shift: what the pointer changes
const state = { frame: 0, playing: true, speed: 1, follow: DATA.follow, path: true, body: true, dirty: true };
let colours = {};

// ---- data

function decode(motion) {
  const bytes = bytesOf(motion.positions);
  const numbers = new DataView(bytes.buffer);
  const positions = new Float32Array(bytes.length / 2);
  for (let i = 0; i < positions.length; i++) positions[i] = numbers.getInt16(2 * i, true) * motion.unit;
  return { ...motion, positions, keys: positions.length / (3 * DATA.joints) }; // of a loop one more than frames
}

/** Joints at a frame, between two frames by linear interpolation -> array of [x, y, z]. */
function poseAt(motion, frame) {
  const last = motion.keys - 1;
  const first = Math.min(Math.floor(frame), last);
  const next = Math.min(first + 1, last);
  const mix = Math.min(frame, last) - first;
  const stride = 3 * DATA.joints;
  const pose = [];
  for (let j = 0; j < stride; j += 3) {
    const at = (k) =>
      (1 - mix) * motion.positions[first * stride + j + k] + mix * motion.positions[next * stride + j + k];
    pose.push([at(0), at(1), at(2)]);
  }
  return pose;
}

function targetAt(motion, frame) {
  if (!state.follow) return motion.still;
  const last = motion.targets.length - 1;
  const first = Math.min(Math.floor(frame), last);
  const next = Math.min(first + 1, last);
  const mix = Math.min(frame, last) - first;
  return motion.targets[first].map((value, k) => (1 - mix) * value + mix * motion.targets[next][k]);
}

// ---- geometry

const add = (a, b, scale = 1) => a.map((value, k) => value + scale * b[k]);
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const unit = (a) => a.map((value) => value / Math.max(Math.hypot(...a), 1e-6));
const onFloor = (a) => [a[0], 0, a[2]];

/** Unit vectors to the right, up and towards the viewer, who is `distance` from the centre of the picture. */
function cameraAt(target) {
  const [sa, ca] = [Math.sin(view.azimuth), Math.cos(view.azimuth)];
  const [se, ce] = [Math.sin(view.elevation), Math.cos(view.elevation)];
  const [right, up, toward] = [[ca, 0, -sa], [-se * sa, ce, -se * ca], [ce * sa, se, ce * ca]];
  const span = (state.follow ? DATA.spans.follow : DATA.spans.still) / view.zoom;
  const centre = add(add(target, right, view.shift[0]), up, view.shift[1]);
  return { right, up, toward, span, centre, distance: DATA.lens * span };
}

/** -> function of a point: [x, y, pixels per metre there], or null behind the viewer. */
function projector(canvas, { right, up, toward, span, centre, distance }) {
  const half = Math.min(canvas.width, canvas.height) / 2;
  return (point) => {
    const away = add(point, centre, -1);
    const depth = distance - dot(away, toward);
    if (depth < 0.05 * distance) return null;
    const scale = (half * distance) / (depth * span);
    return [canvas.width / 2 + dot(away, right) * scale, canvas.height / 2 - dot(away, up) * scale, scale];
  };
}

/** Where hips and shoulders face: left x up, on the floor. */
function faceOf(pose) {
  let left = [0, 0, 0];
  for (const [l, r] of [DATA.hips, DATA.shoulders]) left = add(left, add(pose[l], pose[r], -1));
  return unit([-left[2], 0, left[0]]);
}

// ---- drawing

function line(pen, a, b, colour, width) {
  pen.strokeStyle = colour;
  pen.lineWidth = width;
  pen.beginPath();
  pen.moveTo(a[0], a[1]);
  pen.lineTo(b[0], b[1]);
  pen.stroke();
}

/** A grid that stays where it is in the world and fades out with the distance from the target. */
function drawFloor(pen, project, target, radius) {
  const [cx, cz] = [Math.round(target[0] / CELL), Math.round(target[2] / CELL)];
  const reach = Math.ceil(radius / CELL);
  for (let i = -reach; i <= reach; i++) {
    for (let j = -reach; j < reach; j++) {
      for (const [from, to] of [[[i, j], [i, j + 1]], [[j, i], [j + 1, i]]]) {
        const [a, b] = [from, to].map(([x, z]) => [(cx + x) * CELL, 0, (cz + z) * CELL]);
        const away = Math.hypot((a[0] + b[0]) / 2 - target[0], (a[2] + b[2]) / 2 - target[2]);
        const [p, q] = [project(a), project(b)];
        if (away >= radius || !p || !q) continue;
        pen.globalAlpha = 0.8 * (1 - away / radius);
        line(pen, p, q, colours.floor, pen.dpr);
      }
    }
  }
  pen.globalAlpha = 1;
}

/** Where the root has been (strong) and will be (faint), laid on the floor. */
function drawPath(pen, project, motion, frame) {
  const stride = 3 * DATA.joints;
  const at = (t) => project([motion.positions[t * stride], 0, motion.positions[t * stride + 2]]);
  for (const [from, to, alpha] of [[Math.floor(frame), motion.frames - 1, 0.35], [0, Math.floor(frame), 1]]) {
    pen.globalAlpha = alpha;
    pen.strokeStyle = colours.path;
    pen.lineWidth = 2.5 * pen.dpr;
    pen.beginPath();
    let drawing = false; // a part behind the viewer interrupts the line
    for (let t = from; t <= Math.min(to, motion.frames - 1); t++) {
      const p = at(t);
      if (p && drawing) pen.lineTo(p[0], p[1]);
      else if (p) pen.moveTo(p[0], p[1]);
      drawing = p !== null;
    }
    pen.stroke();
  }
  pen.globalAlpha = 1;
}

/** The pieces of the body, each a thick line: {a, b, size, colour, edge}. */
function bodyParts(pose) {
  const sides = [colours.middle, colours.left, colours.right];
  const parts = DATA.bones.map(([a, b, side, size]) => ({
    a: pose[a], b: pose[b], size, colour: sides[side], edge: side !== 0,
  }));
  const up = unit(add(pose[DATA.head], pose[DATA.neck], -1));
  const ball = add(pose[DATA.head], up, 0.04);
  const face = faceOf(pose);
  const nose = add(ball, face, 0.5 * DATA.sizes.head);
  parts.push({ a: ball, b: add(ball, [0, 1e-4, 0]), size: DATA.sizes.head, colour: colours.middle, edge: true });
  parts.push({ a: nose, b: add(nose, face, 0.04), size: DATA.sizes.nose, colour: colours.nose, edge: true });
  return parts;
}

function drawShadow(pen, project, parts) {
  for (const part of parts) {
    const [p, q] = [project(onFloor(part.a)), project(onFloor(part.b))];
    if (p && q) line(pen, p, q, colours.shadow, 0.4 * part.size * (p[2] + q[2]));
  }
}

/** Far pieces first; round each limb an edge in the colour of the paper, and along it a light. */
function drawBody(pen, project, parts) {
  const placed = parts.map((part) => ({ ...part, p: project(part.a), q: project(part.b) }));
  const visible = placed.filter((part) => part.p && part.q);
  visible.sort((one, other) => one.p[2] + one.q[2] - other.p[2] - other.q[2]);
  for (const { p, q, size, colour, edge } of visible) {
    const width = 0.5 * size * (p[2] + q[2]);
    if (edge) line(pen, p, q, colours.card, width + 3 * pen.dpr);
    line(pen, p, q, colour, width);
    if (!edge) continue; // the spine is one piece
    const alpha = pen.globalAlpha;
    pen.globalAlpha = 0.22 * alpha;
    const shift = ([x, y]) => [x - 0.12 * width, y - 0.16 * width];
    line(pen, shift(p), shift(q), "#ffffff", 0.4 * width);
    pen.globalAlpha = alpha;
  }
}

function draw(panel) {
  const { canvas, pen, motion } = panel;
  fit(canvas, pen);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.lineCap = pen.lineJoin = "round";
  const target = targetAt(motion, state.frame);
  const camera = cameraAt(target);
  const project = projector(canvas, camera);
  const span = state.follow ? DATA.spans.follow : DATA.spans.still;
  drawFloor(pen, project, target, Math.min(12, Math.max(2.5, 2.2 * span)));
  const pose = poseAt(motion, state.frame);
  const parts = bodyParts(pose);
  const skinned = [pen, motion, state.frame, pose[0], camera];
  if (hasBody()) mannequin.shadow(...skinned, Number(colours.shade));
  else drawShadow(pen, project, parts);
  if (state.path) drawPath(pen, project, motion, Math.min(state.frame, motion.frames - 1));
  pen.globalAlpha = state.frame >= motion.frames ? 0.4 : 1; // over: the last pose stays, faded
  if (hasBody()) mannequin.body(...skinned, PAINTS.map((name) => rgb(colours[name])));
  else drawBody(pen, project, parts);
  pen.globalAlpha = 1;
}

const PAINTS = ["trunk", "left", "right", "visor"]; // of the mannequin's groups of triangles
const hasBody = () => state.body && mannequin !== null && !mannequin.lost();
const rgb = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16) / 255);

function fit(canvas, pen) {
  pen.dpr = Math.min(window.devicePixelRatio || 1, 2);
  const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.round(side * pen.dpr));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
}

// ---- the page

const mannequin = makeMannequin(DATA, motions);
const panels = motions.map((motion) => {
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", motion.caption);
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.textContent = motion.caption; // text, never markup
  caption.dir = "auto";
  figure.append(caption, canvas);
  byId("stage").append(figure);
  listen(canvas);
  return { canvas, motion, pen: canvas.getContext("2d") };
});

function showControls() {
  const frame = Math.floor(state.frame);
  byId("time").value = frame;
  byId("clock").textContent = `frame ${frame + 1}/${nFrames}  ${(frame / DATA.fps).toFixed(2)} s`;
  byId("play").textContent = state.playing ? "❚❚" : "▶";
  byId("speed").value = state.speed;
  byId("follow").setAttribute("aria-pressed", state.follow);
  byId("path").setAttribute("aria-pressed", state.path);
  byId("body").setAttribute("aria-pressed", hasBody());
  byId("body").disabled = mannequin === null || mannequin.lost();
  byId("theme").setAttribute("aria-pressed", theme() === "dark");
}

function change(what) {
  Object.assign(state, what, { dirty: true });
}

function goTo(frame) {
  change({ playing: false, frame: Math.min(Math.max(Math.round(frame), 0), nFrames - 1) });
}

function togglePlay() {
  change({ playing: !state.playing, frame: state.frame >= nFrames - 1 ? 0 : state.frame });
}

function resetView() {
  Object.assign(view, { azimuth: DATA.azimuth, elevation: DATA.elevation, zoom: 1, shift: [0, 0] });
  change({ follow: DATA.follow });
}

function stepSpeed(step) {
  const next = SPEEDS.indexOf(state.speed) + step;
  change({ speed: SPEEDS[Math.min(Math.max(next, 0), SPEEDS.length - 1)] });
}

const theme = () => document.documentElement.dataset.theme;

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  const style = getComputedStyle(document.documentElement);
  const names = ["card", "floor", "shadow", "path", "middle", "left", "right", "nose", "trunk", "visor", "shade"];
  colours = Object.fromEntries(names.map((key) => [key, style.getPropertyValue(`--${key}`).trim()]));
  change({});
}

const KEYS = {
  " ": togglePlay,
  ArrowLeft: () => goTo(Math.ceil(state.frame) - 1),
  ArrowRight: () => goTo(Math.floor(state.frame) + 1),
  shiftArrowLeft: () => turnView(-20, 0),
  shiftArrowRight: () => turnView(20, 0),
  shiftArrowUp: () => turnView(0, -20),
  shiftArrowDown: () => turnView(0, 20),
  Home: () => goTo(0),
  End: () => goTo(nFrames - 1),
  "<": () => stepSpeed(-1),
  ">": () => stepSpeed(1),
  "+": () => zoomBy(1.15),
  "-": () => zoomBy(1 / 1.15),
  f: () => change({ follow: !state.follow }),
  t: () => change({ path: !state.path }),
  b: () => change({ body: !state.body }),
  r: resetView,
  d: () => setTheme(theme() === "dark" ? "light" : "dark"),
};

function zoomBy(factor) {
  view.zoom = Math.min(Math.max(view.zoom * factor, 0.2), 12);
  change({});
}

/** One pointer turns the camera (with shift or the right button: moves it), two zoom and move. */
function listen(canvas) {
  const pointers = new Map();
  const spread = () => {
    const [a, b] = [...pointers.values()];
    return Math.hypot(a.x - b.x, a.y - b.y);
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const [dx, dy] = [event.clientX - before.x, event.clientY - before.y];
    const spreadBefore = pointers.size === 2 ? spread() : 1;
    Object.assign(before, { x: event.clientX, y: event.clientY });
    if (pointers.size === 2) zoomBy(spread() / Math.max(spreadBefore, 1));
    if (pointers.size === 2 || event.shiftKey || event.buttons === 2) moveView(canvas, dx, dy, pointers.size);
    else turnView(dx, dy);
  });
  for (const end of ["pointerup", "pointercancel"])
    canvas.addEventListener(end, (event) => pointers.delete(event.pointerId));
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomBy(Math.exp(-0.0015 * event.deltaY));
  }, { passive: false });
}

function turnView(dx, dy) {
  view.azimuth -= 0.008 * dx;
  view.elevation = Math.min(Math.max(view.elevation + 0.008 * dy, -0.1), 1.55);
  change({});
}

/** What lies under the pointer goes with it; of two pointers each does its half. */
function moveView(canvas, dx, dy, pointers) {
  const span = (state.follow ? DATA.spans.follow : DATA.spans.still) / view.zoom;
  const metres = (2 * span) / Math.min(canvas.clientWidth, canvas.clientHeight) / pointers;
  view.shift = [view.shift[0] - metres * dx, view.shift[1] + metres * dy];
  change({});
}

let before = null;
function tick(now) {
  if (state.playing && before !== null) {
    const next = state.frame + ((now - before) / 1000) * DATA.fps * state.speed;
    change({ frame: nFrames > 1 ? next % nFrames : 0 });
  }
  before = now;
  if (state.dirty) {
    state.dirty = false;
    panels.forEach(draw);
    showControls();
  }
  requestAnimationFrame(tick);
}

/** A finger turns the camera; where the page is too long for the screen, it scrolls up and down instead. */
function layout() {
  const stage = byId("stage");
  const action = stage.scrollHeight > stage.clientHeight + 1 ? "pan-y" : "none";
  for (const { canvas } of panels) canvas.style.touchAction = action;
  change({});
}

function start() {
  byId("time").max = nFrames - 1;
  byId("time").addEventListener("input", () => goTo(Number(byId("time").value)));
  byId("speed").addEventListener("change", () => change({ speed: Number(byId("speed").value) }));
  const buttons = { play: togglePlay, follow: KEYS.f, path: KEYS.t, body: KEYS.b, reset: resetView, theme: KEYS.d };
  for (const [id, action] of Object.entries(buttons)) byId(id).addEventListener("click", action);
  document.addEventListener("keydown", (event) => {
    const own = { BUTTON: /^ $/, SELECT: /^(?![a-z]$)/i }[event.target.tagName]; // keys that are its own
    const shift = event.shiftKey && event.key.startsWith("Arrow") ? "shift" : "";
    const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : shift + event.key];
    if (!action || event.ctrlKey || event.metaKey || event.altKey || own?.test(event.key)) return;
    event.preventDefault();
    action();
  });
  window.addEventListener("message", ({ data }) => { if (Number.isFinite(data?.frame)) goTo(data.frame); }); // of app.py
  window.addEventListener("resize", layout);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", () => setTheme(dark.matches ? "dark" : "light"));
  if (window.matchMedia("(prefers-reduced-motion: reduce)").matches) state.playing = false;
  setTheme(dark.matches ? "dark" : "light");
  resetView();
  layout();
  requestAnimationFrame(tick);
}

start();
