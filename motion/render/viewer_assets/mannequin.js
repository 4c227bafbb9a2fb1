"use strict";
// The skinned mannequin by WebGL: one hidden canvas draws it for all panels, which copy the picture.

const VERTEX = `
attribute vec3 place, normal;
attribute vec2 owners; // indices of two bones
attribute float share; // of the first
uniform vec4 rows[3 * BONES]; // of the bones' matrices
uniform vec4 right, up, toward; // of the camera; w: of the target
uniform vec4 lens; // distance, its share of width and of height, nearest depth
uniform vec3 sun;
uniform bool flat_;
varying vec3 facing, away;

vec3 moved(vec4 v, int bone) {
  return vec3(dot(rows[3 * bone], v), dot(rows[3 * bone + 1], v), dot(rows[3 * bone + 2], v));
}

void main() {
  int a = int(owners.x + 0.5), b = int(owners.y + 0.5);
  vec3 at = mix(moved(vec4(place, 1.0), b), moved(vec4(place, 1.0), a), share);
  facing = mix(moved(vec4(normal, 0.0), b), moved(vec4(normal, 0.0), a), share);
  if (flat_) at = vec3(at - sun * max(at.y, 0.0) / sun.y) * vec3(1.0, 0.0, 1.0); // the shadow on the floor
  float depth = lens.x - dot(at, toward.xyz) + toward.w, far = 8.0 * lens.x;
  away = toward.xyz;
  gl_Position = vec4(lens.y * (dot(at, right.xyz) - right.w), lens.z * (dot(at, up.xyz) - up.w),
    (depth * (far + lens.w) - 2.0 * far * lens.w) / (far - lens.w), depth);
}`;
const FRAGMENT = `
precision highp float; // as in the vertex shader: they share uniforms
uniform vec4 paint;
uniform vec3 sun;
uniform bool flat_;
varying vec3 facing, away;

void main() {
  if (flat_) { gl_FragColor = vec4(0.0, 0.0, 0.0, paint.a); return; }
  vec3 n = normalize(facing);
  float light = 0.46 + 0.2 * n.y + 0.42 * max(dot(n, sun), 0.0) + 0.2 * max(dot(n, away), 0.0);
  float edge = pow(1.0 - max(dot(n, away), 0.0), 3.0);
  gl_FragColor = vec4(min(paint.rgb * light + 0.12 * edge * light, 1.0), 1.0);
}`;
const SUN = [0.3, 1, 0.35];
const SUNS = 5; // together they are as wide as a softbox, so a shadow is softer the higher its part of the body
const COARSE = 8; // the shadow is drawn this many times smaller; enlarging it smooths what is left of the steps

/** -> {shadow, body}: functions that draw a motion at a frame with a pen; null where there is no WebGL. */
function makeMannequin(data, motions) {
  const canvas = document.createElement("canvas");
  const gl = canvas.getContext("webgl", { stencil: true, antialias: true });
  const program = gl && link(gl, data.mannequin.parents.length);
  if (!program) return null;
  gl.useProgram(program);
  const at = (name) => gl.getUniformLocation(program, name);
  const uniforms = Object.fromEntries(
    ["rows", "right", "up", "toward", "lens", "sun", "flat_", "paint"].map((name) => [name, at(name)]));

  const buffer = (kind, bytes) => {
    const made = gl.createBuffer();
    gl.bindBuffer(kind, made);
    gl.bufferData(kind, bytes, gl.STATIC_DRAW);
    return made;
  };
  const owners = buffer(gl.ARRAY_BUFFER, bytesOf(data.mannequin.owners));
  const shares = buffer(gl.ARRAY_BUFFER, bytesOf(data.mannequin.shares));
  buffer(gl.ELEMENT_ARRAY_BUFFER, bytesOf(data.mannequin.triangles));
  const bodies = new Map(motions.map((motion) => [motion, {
    places: buffer(gl.ARRAY_BUFFER, bytesOf(motion.body.places)),
    normals: buffer(gl.ARRAY_BUFFER, bytesOf(motion.body.normals)),
    turns: new Int16Array(bytesOf(motion.body.turns).buffer),
  }]));

  const attribute = (name, bound, size, kind, normalised) => {
    const index = gl.getAttribLocation(program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, bound);
    gl.enableVertexAttribArray(index);
    gl.vertexAttribPointer(index, size, kind, normalised, 0, 0);
  };

  function begin(pen, motion, frame, root, camera, scale) {
    const { width, height } = pen.canvas;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const size = [width, height].map((side) => Math.ceil(side / scale));
    gl.viewport(0, 0, ...size);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT | gl.STENCIL_BUFFER_BIT);
    const body = bodies.get(motion);
    attribute("place", body.places, 3, gl.SHORT, false);
    attribute("normal", body.normals, 3, gl.BYTE, true);
    attribute("owners", owners, 2, gl.UNSIGNED_BYTE, false);
    attribute("share", shares, 1, gl.UNSIGNED_BYTE, true);
    gl.uniform4fv(uniforms.rows, boneRows(data.mannequin, motion, body.turns, frame, root));
    for (const name of ["right", "up", "toward"])
      gl.uniform4fv(uniforms[name], [...camera[name], dot(camera[name], camera.centre)]);
    const half = Math.min(canvas.width, canvas.height) * camera.distance / camera.span;
    const near = 0.05 * camera.distance;
    gl.uniform4fv(uniforms.lens, [camera.distance, half / canvas.width, half / canvas.height, near]);
    return () => pen.drawImage(canvas, 0, height - size[1], ...size, 0, 0, width, height);
  }

  /** Once for every sun; the stencil lets each darken a pixel once. */
  function shadow(pen, motion, frame, root, camera, strength) {
    const copy = begin(pen, motion, frame, root, camera, COARSE);
    gl.disable(gl.DEPTH_TEST);
    gl.enable(gl.STENCIL_TEST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE);
    gl.stencilOp(gl.KEEP, gl.KEEP, gl.REPLACE);
    gl.uniform1i(uniforms.flat_, 1);
    gl.uniform4fv(uniforms.paint, [0, 0, 0, strength / SUNS]);
    const total = data.mannequin.groups.reduce((a, b) => a + b);
    for (let i = 0; i < SUNS; i++) {
      const [turn, out] = [2.4 * i, 0.13 * Math.sqrt((i + 0.5) / SUNS)]; // a sunflower's seeds
      const sun = unit([SUN[0] + out * Math.cos(turn), SUN[1], SUN[2] + out * Math.sin(turn)]);
      gl.uniform3fv(uniforms.sun, sun);
      gl.stencilFunc(gl.NOTEQUAL, i + 1, 255);
      gl.drawElements(gl.TRIANGLES, total, gl.UNSIGNED_SHORT, 0);
    }
    copy();
  }

  /** paints: [r, g, b] of 1 for each group of triangles. */
  function body(pen, motion, frame, root, camera, paints) {
    const copy = begin(pen, motion, frame, root, camera, 1);
    gl.disable(gl.STENCIL_TEST);
    gl.disable(gl.BLEND);
    gl.enable(gl.DEPTH_TEST);
    gl.uniform1i(uniforms.flat_, 0);
    gl.uniform3fv(uniforms.sun, unit(SUN));
    let first = 0;
    data.mannequin.groups.forEach((count, group) => {
      gl.uniform4fv(uniforms.paint, [...paints[group], 1]);
      gl.drawElements(gl.TRIANGLES, count, gl.UNSIGNED_SHORT, 2 * first);
      first += count;
    });
    copy();
  }

  return { shadow, body, lost: () => gl.isContextLost() };
}

function link(gl, bones) {
  const program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX.replace("BONES", bones)], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  return gl.getProgramParameter(program, gl.LINK_STATUS) ? program : null;
}

const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

/** The matrices that take vertices (in steps of body.unit) to their place at a frame, three rows a bone. */
function boneRows({ parents }, { body, keys }, turns, frame, root) {
  const last = keys - 1;
  const first = Math.min(Math.floor(frame), last);
  const next = Math.min(first + 1, last);
  const mix = Math.min(frame, last) - first;
  const [rows, places, matrices] = [new Float32Array(12 * parents.length), [], []];
  parents.forEach((parent, bone) => {
    const at = (t) => 4 * (t * parents.length + bone);
    const q = [0, 1, 2, 3].map((k) => (1 - mix) * turns[at(first) + k] + mix * turns[at(next) + k]);
    const length = Math.hypot(...q);
    const [x, y, z, w] = q.map((value) => value / length);
    const m = [
      [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
      [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
      [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ];
    const offset = body.offsets[bone];
    const rest = parent < 0 ? [0, 0, 0] : add(places[parent].rest, offset);
    const now = parent < 0 ? root : places[parent].now.map((value, k) => value + dot(matrices[parent][k], offset));
    places.push({ rest, now });
    matrices.push(m);
    m.forEach((row, k) => {
      rows.set([...row.map((value) => value * body.unit), now[k] - dot(row, rest)], 12 * bone + 4 * k);
    });
  });
  return rows;
}
