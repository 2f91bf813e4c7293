// Up to four cameras beside each other, on one clock and one time bar.
import { useEffect, useRef, useState } from "preact/hooks";
import { useAnswer } from "./answer";
import { ApiError, type Camera, type Timeline, get } from "./api";
import { go } from "./app";
import { type Skipped, type View, carried, described, following, gapNear, newest, zoomedAt } from "./bar";
import { addressOf, followed, useHeld } from "./link";
import { now as present } from "./now";
import { lookForGap } from "./search";
import { whileSeen } from "./seen";
import { askForToken, loggedIn } from "./session";
import { Table } from "./table";
import { type Grip, Legend, TimeBar } from "./timebar";
import { HOUR, clock, moment, span } from "./time";
import { MOST, type ScreenState, Together } from "./together";
import { Fault, NOTHING, Offline, Peek, SPEEDS, When, noGap, useKeys, useTimelines, useZone, withReason } from "./viewing";
import { codecs, reason, skippedOver } from "./words";

const NONE: Camera[] = [];

/** Returns all cameras; empty until they are known. */
export function useCameras(): Camera[] {
  return useAnswer("cameras", (signal) => get<Camera[]>("/api/cameras", {}, signal)).answer ?? NONE;
}

/** A list to add another camera to those that are shown. */
export function AddCamera({ cameras, at }: { cameras: string[]; at: number }) {
  const [chosen, setChosen] = useState("");
  const others = useCameras().filter(({ id }) => !cameras.includes(id));
  if (cameras.length >= MOST || others.length === 0) return null;
  // The button is needed: without it, the arrow keys would open the first camera that they reach in the list.
  return (
    <span class="add">
      <select aria-label="Show another camera beside it" value={chosen} onChange={(event) => setChosen(event.currentTarget.value)}>
        <option value="">+ another camera…</option>
        {[...others].sort((a, b) => a.name.localeCompare(b.name)).map(({ id, name }) => <option key={id} value={id}>{name}</option>)}
      </select>
      {chosen && <button type="button" onClick={() => go(addressOf([...cameras, chosen], at))}>Show</button>}
    </span>
  );
}

export function Group({ cameras, at: asked }: { cameras: string[]; at: number | null }) {
  const screens = useRef<(HTMLVideoElement | null)[]>([]);
  const together = useRef<Together | null>(null);
  /** Actions of the user before the players were made. */
  const early = useRef<((of: Together) => void)[]>([]);
  const ask = (what: (of: Together) => void) => void (together.current ? what(together.current) : early.current.push(what));
  const [at, setAt] = useState(asked ?? present() - 60_000);
  const [states, setStates] = useState<ScreenState[]>([]);
  const [runs, setRuns] = useState(true);
  const [waits, setWaits] = useState(false);
  const [speed, setSpeed] = useState(1);
  const [leapt, setLeapt] = useState<Skipped | undefined>(undefined);
  const [said, setSaid] = useState("");
  const [peeked, setPeeked] = useState<number | null>(null);
  const grip = useRef<Grip>({ isDown: false, isHeld: false });
  /** The instant that was shown last; `undefined`: the view moves to the next one. */
  const head = useRef<number | undefined>(undefined);
  const picks = useRef(0);
  const [view, setView] = useState<View>(() => ({ from: at - HOUR * 0.8, to: at + HOUR * 0.2 }));
  const [now, setNow] = useState(present());
  const [isUtc, setUtc] = useState(false);
  // The only camera with sound.
  const [heard, setHeard] = useState<string | null>(null);
  const known = useCameras();
  const { timelines, covered: knownTime, fault, isSlow } = useTimelines(cameras, view, now);
  const nameOf = (id: string) => known.find((camera) => camera.id === id)?.name ?? id;

  useEffect(() => {
    document.title = cameras.map(nameOf).join(", ");
  }, [known]);
  // There is only one clock: it is in the zone of the first camera.
  useZone(cameras[0] ?? "", isUtc);
  useHeld(states.length > 0 ? addressOf(cameras, at) : undefined, !runs);
  useEffect(() => {
    const stop = whileSeen(() => setNow(present()), 10_000);
    const made = (from: number) => {
      const videos = screens.current.flatMap((video) => (video ? [video] : []));
      together.current = new Together(videos, cameras, from, (instant, isRunning, isWaiting, each, over) => {
        setAt(instant);
        setRuns(isRunning);
        setWaits(isWaiting);
        setStates(each);
        setLeapt(over);
        if (!isRunning || grip.current.isDown) return;
        const before = head.current;
        head.current = instant;
        setView((seen) => carried(seen, before, instant, grip.current.isHeld));
      });
      for (const what of early.current.splice(0)) what(together.current);
    };
    let isOver = false;
    if (asked !== null) made(asked);
    else void ends(cameras).then((all) => isOver || made((all.length > 0 ? Math.max(...all) : present()) - 30_000));
    return () => {
      isOver = true;
      stop();
      together.current?.close();
      together.current = null;
    };
  }, []);
  // The user went back or forward in the browser's history.
  useEffect(() => {
    if (asked !== null && Math.abs(asked - at) > 1500) ask((of) => of.seek(asked));
  }, [asked]);

  /** Lets the view follow the clock again, and ends a search for a gap. */
  const letGo = () => {
    grip.current.isHeld = false;
    head.current = undefined;
    picks.current++;
    setPeeked(null);
    setSaid("");
  };
  const pick = (instant: number) => {
    letGo();
    const to = Math.max(0, Math.min(instant, newest(timelines, present())));
    setView((seen) => following(seen, to));
    ask((of) => of.seek(to));
    setAt(to);
    go(addressOf(cameras, to), true);
  };
  const toggle = () => ask((of) => of.setRunning(!runs));
  const toGap = (direction: 1 | -1) => {
    const goTo = (starts: number[]) => pick((direction > 0 ? Math.min(...starts) : Math.max(...starts)) - 5000);
    const near = timelines.flatMap((timeline) => gapNear(timeline, knownTime, at, direction) ?? []);
    if (near.length > 0) return goTo(near);
    const mine = ++picks.current;
    void Promise.all(cameras.map((camera) => lookForGap(camera, at, direction))).then((all) => {
      if (mine !== picks.current) return;
      const found = all.flatMap((start) => start ?? []);
      if (found.length > 0) goTo(found);
      else setSaid(noGap(direction));
    }, (error: Error) => mine === picks.current && setSaid(error.message));
  };
  const faster = (value: number) => {
    setSpeed(value);
    ask((of) => of.setSpeed(value));
  };
  const goLive = () =>
    void ends(cameras).then((all) => {
      letGo();
      setSpeed(1);
      ask((of) => of.goLive(all));
    });
  useKeys({
    " ": toggle, k: toggle, j: () => pick(at - 10_000), l: () => pick(at + 10_000),
    ArrowLeft: () => pick(at - 5000), ArrowRight: () => pick(at + 5000), n: () => toGap(1), p: () => toGap(-1),
    "+": () => setView(zoomedAt(view, 0.5, at)), "-": () => setView(zoomedAt(view, 2, at)),
  });
  const shown = peeked ?? at;
  const lanes = cameras.map((camera, index) => ({ name: nameOf(camera), timeline: timelines[index] ?? NOTHING }));
  return (
    <>
      <header class="top">
        <a class="back" href="/" onClick={followed}>← Cameras</a>
        <h1 tabIndex={-1}>{cameras.length} cameras on one clock</h1>
        <AddCamera cameras={cameras} at={at} />
      </header>
      <main class="watch">
        <Offline />
        <div class={`screens of${cameras.length}`}>
          {cameras.map((camera, index) => (
            <figure key={camera}>
              <div class="screen">
                <video ref={(element) => { screens.current[index] = element; }} playsInline muted={heard !== camera} aria-label={`Recording of ${camera}`} data-at={states[index]?.at} />
                {peeked !== null && <Peek camera={camera} at={peeked} timeline={timelines[index] ?? NOTHING} />}
                {peeked === null && <State state={states[index]} timeline={timelines[index] ?? NOTHING} at={at} />}
              </div>
              <figcaption>
                <a href={addressOf([camera], at)} onClick={followed}>{nameOf(camera)}</a>
                <label class="check quiet"><input type="checkbox" checked={heard === camera} onChange={() => setHeard(heard === camera ? null : camera)} /> Sound<span class="unseen"> of {nameOf(camera)}</span></label>
                <a class="quiet" href={addressOf(cameras.filter((other) => other !== camera), at)} onClick={followed} aria-label={`Close ${nameOf(camera)}`}>✕</a>
              </figcaption>
              {(states[index]?.leftOut.length ?? 0) > 0 && <p class="quiet note" role="note">{codecs(states[index]?.leftOut ?? [])} does not play here and is left out.</p>}
            </figure>
          ))}
        </div>
        <When at={shown} isUtc={isUtc} setUtc={setUtc}>
          {together.current?.isLive() && runs && <span class="live"> live, {span(Math.max(0, present() - at) / 1000)} behind</span>}
          {runs && waits && <span class="quiet" role="status"> waiting for pictures…</span>}
          {leapt && <span class="quiet" role="status"> {skippedOver(withReason(leapt, timelines))}</span>}
          {said && <span class="quiet" role="status"> {said}</span>}
        </When>
        <TimeBar view={view} setView={setView} lanes={lanes} at={shown} now={now} covered={knownTime} peek={setPeeked} grip={grip} pick={pick} />
        <Fault what="What is recorded" fault={fault} isSlow={isSlow} />
        <Legend isPending={timelines.some(({ pending }) => pending.length > 0)} />
        <div class="controls">
          <button type="button" onClick={toggle}>{runs ? "Pause" : "Play"}</button>
          <button type="button" onClick={() => pick(at - 10_000)} title="10 seconds back (j)">−10 s</button>
          <button type="button" onClick={() => pick(at + 10_000)} title="10 seconds on (l)">+10 s</button>
          <button type="button" onClick={() => toGap(-1)}>Previous gap</button>
          <button type="button" onClick={() => toGap(1)}>Next gap</button>
          <label>Speed <select class="numbers" value={speed} onChange={(event) => faster(Number(event.currentTarget.value))}>
            {SPEEDS.map((value) => <option key={value} value={value}>{value}×</option>)}
          </select></label>
          <button type="button" onClick={() => setView(zoomedAt(view, 0.5, at))} aria-label="Zoom in">+</button>
          <button type="button" onClick={() => setView(zoomedAt(view, 2, at))} aria-label="Zoom out">−</button>
          <button type="button" onClick={goLive}>Live</button>
        </div>
        {lanes.map((lane, index) => <Table key={cameras[index]} timeline={lane.timeline} covered={knownTime} pick={pick} of={lane.name} />)}
        <p class="quiet keys">Keys: space plays and pauses, j l ten seconds, arrows five, n p gaps, + − zoom.</p>
      </main>
    </>
  );
}

/** Says why a camera has no picture at the instant, while the others go on. */
function State({ state, timeline, at }: { state: ScreenState | undefined; timeline: Timeline; at: number }) {
  const words = why(state, timeline, at);
  return words ? <p class="absent" role="status">{words}</p> : null;
}

function why(state: ScreenState | undefined, timeline: Timeline, at: number): string {
  if (!state) return "loading…";
  const known = described(timeline, at);
  if (known === "recorded, not yet uploaded") return "recorded, not yet uploaded";
  const cause = state.reason ?? (typeof known === "object" ? known.gap : undefined);
  if (state.place === "gap") return `nothing is recorded until ${moment(state.until ?? at, at)}${cause ? `: ${reason(cause)}` : ""}`;
  // Recorded, but this browser may have no decoder for it.
  if (state.place === "stored") return state.fault;
  if (state.place === "after") return state.fault || `nothing is stored after ${clock(state.until ?? at)}`;
  if (state.place === "loading") return state.fault || (state.at === undefined ? "loading…" : "");
  return "";
}

/** Returns the end of what each of the cameras stored, ms since 1970; without those that stored nothing. Empty if the request fails. */
async function ends(cameras: string[]): Promise<number[]> {
  const all = await get<Camera[]>("/api/cameras").catch((error: Error) => error);
  if (all instanceof ApiError && all.status === 401) {
    askForToken();
    await loggedIn();
    return ends(cameras);
  }
  if (all instanceof Error) return [];
  return all.flatMap(({ id, last_stored }) => (cameras.includes(id) && last_stored ? [Date.parse(last_stored)] : []));
}
