
// The viewer: three planes of one volume on canvases, lesions and class activation over them.
// All data are in the page; nothing is asked for from elsewhere.

const PLANES = { axial: [0, 1, 2], coronal: [0, 2, 1], sagittal: [1, 2, 0] }; // right, up, across
const LESION = [230, 159, 0], FOR = [255, 92, 192], AGAINST = [47, 208, 138];

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

class Viewer {
  constructor(element) {
    this.element = element;
    this.about = JSON.parse(element.dataset.about);
    this.at = [...(this.about.places["1"] ?? this.about.shape.map((n) => n >> 1))];
    this.controls = {};
    for (const control of element.querySelectorAll("[name]")) {
      this.controls[control.name] = control;
      control.addEventListener("input", () => this.draw());
    }
    this.readout = element.querySelector("output");
    for (const [plane, axes] of Object.entries(PLANES)) this.listen(plane, axes);
    element.hidden = false;
  }

  async load() {
    this.loading ??= (async () => {
      const packed = this.element.dataset;
      this.flair = new Uint8Array(await unpack(packed.flair));
      this.lesions = new Uint16Array(await unpack(packed.lesions));
      this.cams = {};
      for (const name of Array.from(this.controls.cam.options, (option) => option.value)) {
        if (name) this.cams[name] = new Int8Array(await unpack(packed["cam" + this.controls.cam.namedItem(name).dataset.index]));
      }
      this.element.classList.add("ready");
      this.draw();
    })();
    return this.loading;
  }

  listen(plane, [right, up, across]) {
    const canvas = this.element.querySelector(`canvas[data-plane="${plane}"]`);
    const slider = this.element.querySelector(`input[data-plane="${plane}"]`);
    const { shape, zooms } = this.about;
    const scale = Math.max(1, Math.min(4, 440 / (shape[right] * zooms[right])));
    canvas.width = Math.round(shape[right] * zooms[right] * scale);
    canvas.height = Math.round(shape[up] * zooms[up] * scale);
    canvas.parentElement.style.flexGrow = shape[right] * zooms[right]; // one scale for all planes
    slider.max = shape[across] - 1;
    slider.addEventListener("input", () => this.move(across, Number(slider.value)));
    const pick = (event) => {
      const box = canvas.getBoundingClientRect();
      this.move(right, Math.floor(((event.clientX - box.left) / box.width) * shape[right]));
      this.move(up, shape[up] - 1 - Math.floor(((event.clientY - box.top) / box.height) * shape[up]));
    };
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); pick(event); });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons) pick(event); });
  }

  move(axis, index) {
    this.at[axis] = Math.max(0, Math.min(this.about.shape[axis] - 1, index));
    this.draw();
  }

  async show(lesion) {
    const place = this.about.places[lesion];
    if (!place) return;
    this.at = [...place];
    await this.load();
    this.draw();
  }

  draw() {
    if (!this.lesions || this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      for (const [plane, axes] of Object.entries(PLANES)) this.drawPlane(plane, axes);
      const mm = this.about.affine.map((row) => row[3] + row[0] * this.at[0] + row[1] * this.at[1] + row[2] * this.at[2]);
      const [x, y, z] = this.at, [X, Y] = this.about.shape;
      const lesion = this.lesions[x + X * (y + Y * z)];
      this.readout.textContent = `x ${mm[0].toFixed(0)}, y ${mm[1].toFixed(0)}, z ${mm[2].toFixed(0)} mm (RAS)` + (lesion ? `, lesion ${lesion}` : "");
    });
  }

  drawPlane(plane, [right, up, across]) {
    const { shape, camShape, camPerVoxel } = this.about;
    const stride = [1, shape[0], shape[0] * shape[1]];
    const camStride = [1, camShape[0], camShape[0] * camShape[1]];
    const width = shape[right], height = shape[up];
    const opacity = Number(this.controls.opacity.value) / 100;
    const gain = Number(this.controls.brightness.value) / 100;
    const cam = this.cams[this.controls.cam.value];
    const shown = this.controls.lesions.checked, filled = this.controls.fill.checked;
    const picture = new ImageData(width, height);
    const base = this.at[across] * stride[across];
    const camBase = Math.floor(this.at[across] * camPerVoxel[across]) * camStride[across];
    const same = (u, v, number) => u >= 0 && v >= 0 && u < width && v < height && this.lesions[base + u * stride[right] + v * stride[up]] === number;
    for (let v = 0; v < height; v++) {
      const camRow = camBase + Math.floor(v * camPerVoxel[up]) * camStride[up];
      for (let u = 0; u < width; u++) {
        const voxel = base + u * stride[right] + v * stride[up];
        const grey = Math.min(255, this.flair[voxel] * gain);
        let colour = [grey, grey, grey];
        const mix = (over, share) => { colour = colour.map((value, k) => value + share * (over[k] - value)); };
        if (cam && this.flair[voxel]) {
          const value = cam[camRow + Math.floor(u * camPerVoxel[right]) * camStride[right]] / 127;
          mix(value > 0 ? FOR : AGAINST, Math.abs(value) * opacity);
        }
        const number = this.lesions[voxel];
        if (shown && number) {
          const inner = same(u - 1, v, number) && same(u + 1, v, number) && same(u, v - 1, number) && same(u, v + 1, number);
          if (!inner) mix(LESION, Math.min(1, opacity + 0.3));
          else if (filled) mix(LESION, opacity * 0.7);
        }
        const place = 4 * (u + width * (height - 1 - v));
        picture.data[place] = colour[0]; picture.data[place + 1] = colour[1]; picture.data[place + 2] = colour[2];
        picture.data[place + 3] = 255;
      }
    }
    const canvas = this.element.querySelector(`canvas[data-plane="${plane}"]`);
    const small = document.createElement("canvas");
    small.width = width; small.height = height;
    small.getContext("2d").putImageData(picture, 0, 0);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    const px = ((this.at[right] + 0.5) / width) * canvas.width;
    const py = (1 - (this.at[up] + 0.5) / height) * canvas.height;
    context.strokeStyle = "#56B4E9aa";
    context.beginPath();
    context.moveTo(px, 0); context.lineTo(px, canvas.height);
    context.moveTo(0, py); context.lineTo(canvas.width, py);
    if (this.controls.cross.checked) context.stroke();
    context.fillStyle = "#e8e8e8"; context.font = "16px sans-serif";
    const [before, after] = plane === "sagittal" ? ["P", "A"] : ["L", "R"];
    context.fillText(before, 6, 20); context.fillText(after, canvas.width - 18, 20);
    this.element.querySelector(`input[data-plane="${plane}"]`).value = this.at[across];
  }
}

const viewers = new Map();
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) viewers.get(entry.target.id).load();
});
for (const element of document.querySelectorAll(".viewer[data-about]")) {
  viewers.set(element.id, new Viewer(element));
  seen.observe(element);
}
for (const button of document.querySelectorAll("button[data-lesion]")) {
  button.addEventListener("click", () => {
    const viewer = viewers.get(button.dataset.viewer);
    if (!viewer) return;
    viewer.show(button.dataset.lesion);
    viewer.element.scrollIntoView({ block: "nearest" });
  });
}
