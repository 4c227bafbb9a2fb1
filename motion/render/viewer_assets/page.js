// Parts of the page of app.py: a floor on which clicks become waypoints, a time line on which a drag selects a stretch.
// Both write into a text field of the page, which can also be typed into; only the field is read.

/** The text field inside the component with this id; `write` sets it as if a person typed. */
const field = (id) => document.querySelector(`#${id} textarea, #${id} input`);
function write(id, text) {
  field(id).value = text;
  field(id).dispatchEvent(new Event("input", { bubbles: true }));
}

/** Top view in metres: z upwards, x to the left, which is the left of a person who faces up the picture. */
function floor(element, { pace, first, longest }) {
  const svg = element.querySelector("svg");
  const id = "waypoints";
  const points = () => [...field(id).value.matchAll(/(\S+?),(\S+?)@([^\s:]+)(\S*)/g)].map((m) => m.slice(1, 4).map(Number));
  const draw = () => {
    const known = points().filter((point) => point.every(Number.isFinite));
    svg.querySelector("polyline").setAttribute("points", [[0, 0], ...known].map(([x, z]) => `${-x},${-z}`).join(" "));
    svg.querySelector("g").replaceChildren(...known.flatMap(([x, z, at]) => ["circle", "text"].map((kind) => {
      const mark = document.createElementNS(svg.namespaceURI, kind);
      const place = kind === "text" ? { x: 0.14 - x, y: -z } : { cx: -x, cy: -z, r: 0.09 };
      for (const [name, value] of Object.entries(place)) mark.setAttribute(name, value);
      if (kind === "text") mark.textContent = `${at} s`;
      return mark;
    })));
  };
  svg.addEventListener("click", (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const [x, z] = [-at.x, -at.y].map((metres) => Math.round(20 * metres) / 20 + 0); // no -0
    const [px, pz, before] = points().at(-1) ?? [0, 0, 0];
    const seconds = before + Math.hypot(x - px, z - pz) / pace + (before ? 0 : first);
    const time = Math.min(Math.max(Math.ceil(10 * seconds) / 10, before + 0.5), longest);
    write(id, `${field(id).value} ${x},${z}@${+time.toFixed(1)}`.trim());
    draw();
  });
  element.querySelector("button").addEventListener("click", () => { write(id, ""); draw(); });
  document.addEventListener("input", (event) => { if (event.target === field(id)) draw(); });
}

/** A bar as long as the motion. A drag writes "first,last" in frames; the viewer shows the frame under the pointer. */
function timeline(element, _, watch) {
  const id = "stretch";
  let from = null;
  const bar = () => element.querySelector("[data-frames]");
  const frameAt = (event) => {
    const { left, width } = bar().getBoundingClientRect();
    const frames = Number(bar().dataset.frames);
    return Math.round(Math.min(Math.max((event.clientX - left) / width, 0), 1) * frames);
  };
  const draw = () => {
    const frames = Number(bar()?.dataset.frames);
    const text = field(id)?.value ?? "";
    const [first, last] = text.split(",").map((bound) => Number(bound) * (text.includes(".") ? frames : 1)); // or fractions
    if (!frames) return;
    const chosen = last > first;
    const mark = bar().querySelector("i").style;
    mark.left = `${chosen ? 100 * first / frames : 0}%`;
    mark.width = `${chosen ? 100 * Math.min(last - first, frames - first) / frames : 0}%`;
  };
  const select = (event) => {
    const [first, last] = [from, frameAt(event)].sort((a, b) => a - b);
    write(id, last > first ? `${first},${last}` : "");
    draw();
    document.querySelector("#viewer iframe")?.contentWindow.postMessage({ frame: frameAt(event) }, "*");
  };
  element.addEventListener("pointerdown", (event) => {
    if (!event.target.closest("[data-frames]")) return;
    bar().setPointerCapture(event.pointerId);
    from = frameAt(event);
    select(event);
  });
  element.addEventListener("pointermove", (event) => { if (from !== null) select(event); });
  for (const end of ["pointerup", "pointercancel"]) element.addEventListener(end, () => { from = null; });
  document.addEventListener("input", (event) => { if (event.target === field(id)) draw(); });
  watch("value", draw); // another motion, another bar
}
