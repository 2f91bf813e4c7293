// The time bar: recorded times solid, gaps hatched, recordings not yet uploaded dotted, and the instant that is shown. One lane for each camera.
// Click goes to an instant, dragging previews it, wheel or pinch zooms.
import { useEffect, useRef } from "preact/hooks";
import type { Range, Timeline } from "./api";
import { type View, described, instant, moved, parts, share, zoomed } from "./bar";
import { DAY, axisStep, clock, date, hourMinute, marks, midnight, moment, shortDate, zone } from "./time";
import { reason } from "./words";

/** What keeps the view in place while the picture plays: a pressed pointer (`isDown`), and a view chosen by the pointer (`isHeld`). */
export interface Grip { isDown: boolean; isHeld: boolean }

export interface Lane { name: string; timeline: Timeline }

interface Props {
  view: View;
  setView: (view: View) => void;
  lanes: Lane[];
  at: number;
  now: number;
  /** The span of the timelines: a part that ends there may be longer. */
  covered: View;
  /** Previews the instant under the pressed pointer; `null` ends the preview. */
  peek: (at: number | null) => void;
  /** Updated by the pointer. The screen reads it before it moves the view. */
  grip: { current: Grip };
  /** Goes to the instant. */
  pick: (at: number) => void;
}

export function TimeBar(props: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const latest = useRef(props);
  latest.current = props;
  useEffect(() => {
    const element = canvas.current;
    if (!element) return;
    const redraw = () => draw(element, latest.current);
    redraw();
    const observer = new ResizeObserver(redraw);
    observer.observe(element);
    return () => observer.disconnect();
  }, [props.view.from, props.view.to, props.lanes, props.at, props.now, zone()]);
  useEffect(() => (canvas.current ? pointers(canvas.current, latest) : undefined), []);
  const describe = ({ timeline }: Lane): string => {
    const known = described(timeline, props.at);
    if (typeof known === "string") return known;
    return `gap, ${reason(known.gap)}${known.until < props.covered.to ? `, until ${moment(known.until, props.at)}` : ""}`;
  };
  const words = props.lanes.map((lane) => (props.lanes.length > 1 ? `${lane.name}: ${describe(lane)}` : describe(lane))).join("; ");
  const keys = (event: KeyboardEvent) => {
    // Keys with these modifiers are the browser's: back, forward, other tabs.
    if (event.altKey || event.metaKey || event.ctrlKey) return;
    const { view, at } = props;
    const step = event.shiftKey ? 60_000 : 5000;
    const page = (view.to - view.from) / 10;
    const by: Record<string, number> = { ArrowLeft: -step, ArrowDown: -step, ArrowRight: step, ArrowUp: step, PageDown: -page, PageUp: page, Home: view.from - at, End: view.to - at };
    const to = by[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    props.pick(at + to);
  };
  const seconds = (at: number) => Math.round(at / 1000);
  const [least, most] = [seconds(props.view.from), seconds(props.view.to)];
  return (
    <canvas
      ref={canvas}
      class={`bar lanes${props.lanes.length}`}
      role="slider"
      tabIndex={0}
      aria-label="Time"
      aria-valuemin={least}
      aria-valuemax={most}
      aria-valuenow={Math.min(most, Math.max(least, seconds(props.at)))}
      aria-valuetext={`${clock(props.at)}, ${date(props.at)}, ${words}`}
      onKeyDown={keys}
    />
  );
}

function draw(canvas: HTMLCanvasElement, { view, lanes, at, now }: Props): void {
  const scale = devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (width === 0) return;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  if (!context) return;
  const style = getComputedStyle(canvas);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  context.scale(scale, scale);
  const [top, bottom] = [6, height - 22];
  const each = (bottom - top) / lanes.length;
  lanes.forEach(({ timeline }, index) => {
    const lane = { top: top + index * each, height: each - (lanes.length > 1 ? 3 : 0), width };
    paint(context, view, timeline, lane, now, colour);
  });
  axis(context, view, width, bottom, height, colour("--ink"));
  context.fillStyle = colour("--head");
  context.fillRect(share(view, at) * width - 1.5, 0, 3, bottom + 6);
}

function paint(context: CanvasRenderingContext2D, view: View, timeline: Timeline, lane: { top: number; height: number; width: number }, now: number, colour: (name: string) => string): void {
  const x = (t: number) => share(view, t) * lane.width;
  const fill = (style: string | CanvasPattern, ranges: Range[]) => {
    context.fillStyle = style;
    for (const { from, to } of parts(ranges)) {
      const left = Math.max(0, x(from));
      const right = Math.min(lane.width, x(to));
      if (right > 0 && left < lane.width) context.fillRect(left, lane.top, Math.max(1, right - left), lane.height);
    }
  };
  context.fillStyle = colour("--empty");
  context.fillRect(0, lane.top, lane.width, lane.height);
  if (now < view.to) {
    context.fillStyle = colour("--future");
    context.fillRect(Math.max(0, x(now)), lane.top, lane.width, lane.height);
  }
  fill(colour("--recorded"), timeline.ranges);
  fill(hatch(context, colour("--gap")) ?? colour("--gap"), timeline.gaps);
  // Pending parts cover gaps: what is not uploaded yet is not missing.
  fill(colour("--empty"), timeline.pending);
  fill(dots(context, colour("--recorded")) ?? colour("--recorded"), timeline.pending);
}

/** The legend of the patterns. */
export function Legend({ isPending }: { isPending: boolean }) {
  return (
    <ul class="legend quiet" aria-label="Legend of the time bar">
      <li><Swatch pattern="recorded" /> recorded</li>
      <li><Swatch pattern="gap" /> gap</li>
      {isPending && <li><Swatch pattern="pending" /> recorded, not yet uploaded</li>}
      <li><Swatch pattern="future" /> not yet</li>
    </ul>
  );
}

function Swatch({ pattern }: { pattern: "recorded" | "gap" | "pending" | "future" }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!canvas.current || !context) return;
    const style = getComputedStyle(canvas.current);
    const colour = (name: string) => style.getPropertyValue(name).trim();
    const fill = (what: string | CanvasPattern | null) => {
      context.fillStyle = what ?? colour("--ink");
      context.fillRect(0, 0, 28, 14);
    };
    fill(colour(pattern === "future" ? "--future" : "--empty"));
    if (pattern === "recorded") fill(colour("--recorded"));
    if (pattern === "gap") fill(hatch(context, colour("--gap")));
    if (pattern === "pending") fill(dots(context, colour("--recorded")));
  }, [pattern]);
  return <canvas ref={canvas} class="swatch" width={28} height={14} aria-hidden="true" />;
}

function axis(context: CanvasRenderingContext2D, view: View, width: number, bottom: number, height: number, ink: string): void {
  // A bar narrower than 900 px gets coarser steps, which leave room for the labels.
  const step = axisStep((view.to - view.from) * Math.max(1, 900 / width));
  context.fillStyle = ink;
  context.font = "12px system-ui, sans-serif";
  context.textAlign = "center";
  for (const t of marks(view.from, view.to, step)) {
    const at = share(view, t) * width;
    context.fillRect(at, bottom, 1, 4);
    const text = step >= DAY || t === midnight(t) ? shortDate(t) : step < 60_000 ? clock(t) : hourMinute(t);
    if (at > 20 && at < width - 20) context.fillText(text, at, height - 5);
  }
}

function hatch(context: CanvasRenderingContext2D, colour: string): CanvasPattern | null {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const pen = tile.getContext("2d");
  if (!pen) return null;
  pen.strokeStyle = colour;
  pen.lineWidth = 2;
  for (const shift of [-8, 0, 8]) {
    pen.moveTo(shift, 8);
    pen.lineTo(shift + 8, 0);
  }
  pen.stroke();
  return context.createPattern(tile, "repeat");
}

function dots(context: CanvasRenderingContext2D, colour: string): CanvasPattern | null {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const pen = tile.getContext("2d");
  if (!pen) return null;
  pen.fillStyle = colour;
  for (const [x, y] of [[0, 0], [4, 4]] as const) pen.fillRect(x, y, 4, 4);
  return context.createPattern(tile, "repeat");
}

/** Handles click, drag, pinch and wheel. Returns a function that removes the listeners. */
function pointers(canvas: HTMLCanvasElement, latest: { current: Props }): () => void {
  const down = new Map<number, number>();
  let pinch = 0;
  const at = (event: { clientX: number }) => {
    const box = canvas.getBoundingClientRect();
    return instant(latest.current.view, (event.clientX - box.left) / box.width);
  };
  const move = (view: View) => {
    latest.current.grip.current.isHeld = true;
    latest.current.setView(view);
  };
  const distance = () => {
    const [a = 0, b = 0] = [...down.values()];
    return Math.max(10, Math.abs(a - b));
  };
  const pressed = (event: PointerEvent) => {
    // Other buttons are left to the browser.
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, event.clientX);
    if (down.size > 1) pinch = distance();
    latest.current.grip.current.isDown = true;
    // A second finger means a pinch: the first one was not meant as an instant.
    latest.current.peek(down.size === 1 ? at(event) : null);
  };
  const dragged = (event: PointerEvent) => {
    if (!down.has(event.pointerId)) return;
    down.set(event.pointerId, event.clientX);
    if (down.size > 1) {
      const [a = 0, b = 0] = [...down.values()];
      move(zoomed(latest.current.view, pinch / distance(), at({ clientX: (a + b) / 2 })));
      pinch = distance();
    } else if (pinch === 0) latest.current.peek(at(event));
  };
  const released = (event: PointerEvent) => {
    const was = down.size;
    if (!down.delete(event.pointerId)) return;
    const isPicked = was === 1 && pinch === 0 && event.type === "pointerup";
    if (down.size > 1) pinch = distance();
    if (down.size === 0) {
      pinch = 0;
      latest.current.grip.current.isDown = false;
    }
    if (isPicked) latest.current.pick(at(event));
    else latest.current.peek(null);
  };
  const wheel = (event: WheelEvent) => {
    event.preventDefault();
    const { view } = latest.current;
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) move(moved(view, ((view.to - view.from) * event.deltaX) / 1000));
    else move(zoomed(view, Math.exp(event.deltaY / 400), at(event)));
  };
  canvas.addEventListener("pointerdown", pressed);
  canvas.addEventListener("pointermove", dragged);
  canvas.addEventListener("pointerup", released);
  canvas.addEventListener("pointercancel", released);
  canvas.addEventListener("wheel", wheel, { passive: false });
  return () => {
    canvas.removeEventListener("pointerdown", pressed);
    canvas.removeEventListener("pointermove", dragged);
    canvas.removeEventListener("pointerup", released);
    canvas.removeEventListener("pointercancel", released);
    canvas.removeEventListener("wheel", wheel);
  };
}
