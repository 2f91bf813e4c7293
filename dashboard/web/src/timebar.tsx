// The time bar: recorded solid, gaps hatched, the instant that is shown. Click or drag to go there, wheel or pinch to zoom.
import { useEffect, useRef } from "preact/hooks";
import type { Timeline } from "./api";
import { type View, described, instant, moved, share, zoomed } from "./bar";
import { DAY, axisStep, clock, date, hourMinute, midnight, shortDate, zone } from "./time";
import { reason } from "./words";

interface Props {
  view: View;
  setView: (view: View) => void;
  timeline: Timeline;
  at: number;
  now: number;
  /** The pointer moves over the bar while it is pressed: show this instant. */
  peek: (at: number) => void;
  /** Go there. */
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
  }, [props.view.from, props.view.to, props.timeline, props.at, props.now, zone()]);
  useEffect(() => (canvas.current ? pointers(canvas.current, latest) : undefined), []);
  const known = described(props.timeline, props.at);
  const words = typeof known === "string" ? known : `gap, ${reason(known.gap)}, until ${clock(known.until)}`;
  const keys = (event: KeyboardEvent) => {
    const step = event.shiftKey ? 60_000 : event.ctrlKey ? 10_000 : 1000;
    const to = { ArrowLeft: -step, ArrowRight: step, PageDown: -60_000, PageUp: 60_000 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    props.pick(props.at + to);
  };
  return (
    <canvas
      ref={canvas}
      class="bar"
      role="slider"
      tabIndex={0}
      aria-label="Time"
      aria-valuemin={Math.round(props.view.from / 1000)}
      aria-valuemax={Math.round(props.view.to / 1000)}
      aria-valuenow={Math.round(props.at / 1000)}
      aria-valuetext={`${clock(props.at)}, ${date(props.at)}, ${words}`}
      onKeyDown={keys}
    />
  );
}

function draw(canvas: HTMLCanvasElement, { view, timeline, at, now }: Props): void {
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
  const x = (t: number) => share(view, t) * width;
  const [top, bottom] = [6, height - 22];
  context.fillStyle = colour("--empty");
  context.fillRect(0, top, width, bottom - top);
  const part = (from: string, to: string): [number, number] => {
    const left = Math.max(0, x(Date.parse(from)));
    return [left, Math.max(1, Math.min(width, x(Date.parse(to))) - left)];
  };
  context.fillStyle = colour("--recorded");
  for (const { from, to } of timeline.ranges) {
    const [left, length] = part(from, to);
    context.fillRect(left, top, length, bottom - top);
  }
  context.fillStyle = hatch(context, colour("--gap")) ?? colour("--gap");
  for (const { from, to } of timeline.gaps) {
    const [left, length] = part(from, to);
    context.fillRect(left, top, length, bottom - top);
  }
  if (now < view.to) {
    context.fillStyle = colour("--future");
    context.fillRect(Math.max(0, x(now)), top, width, bottom - top);
  }
  axis(context, view, width, bottom, height, colour("--ink"));
  context.fillStyle = colour("--head");
  context.fillRect(x(at) - 1.5, 0, 3, bottom + 6);
}

function axis(context: CanvasRenderingContext2D, view: View, width: number, bottom: number, height: number, ink: string): void {
  const step = axisStep((view.to - view.from) * Math.max(1, 900 / width));
  context.fillStyle = ink;
  context.font = "12px system-ui, sans-serif";
  context.textAlign = "center";
  const anchor = midnight(view.from);
  for (let t = anchor + Math.ceil((view.from - anchor) / step) * step; t <= view.to; t += step) {
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

/** Click, drag, pinch and wheel. */
function pointers(canvas: HTMLCanvasElement, latest: { current: Props }): () => void {
  const down = new Map<number, number>();
  let pinch = 0;
  const at = (event: { clientX: number }) => {
    const box = canvas.getBoundingClientRect();
    return instant(latest.current.view, (event.clientX - box.left) / box.width);
  };
  const distance = () => {
    const [a = 0, b = 0] = [...down.values()];
    return Math.max(10, Math.abs(a - b));
  };
  const pressed = (event: PointerEvent) => {
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, event.clientX);
    pinch = down.size === 2 ? distance() : 0;
    if (down.size === 1) latest.current.peek(at(event));
  };
  const dragged = (event: PointerEvent) => {
    if (!down.has(event.pointerId)) return;
    down.set(event.pointerId, event.clientX);
    if (down.size === 2) {
      const [a = 0, b = 0] = [...down.values()];
      latest.current.setView(zoomed(latest.current.view, pinch / distance(), at({ clientX: (a + b) / 2 })));
      pinch = distance();
    } else latest.current.peek(at(event));
  };
  const released = (event: PointerEvent) => {
    const was = down.size;
    if (!down.delete(event.pointerId)) return;
    if (was === 1 && pinch === 0) latest.current.pick(at(event));
    if (down.size === 0) pinch = 0;
  };
  const wheel = (event: WheelEvent) => {
    event.preventDefault();
    const { view, setView } = latest.current;
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) setView(moved(view, ((view.to - view.from) * event.deltaX) / 1000));
    else setView(zoomed(view, Math.exp(event.deltaY / 400), at(event)));
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
