// The screen of one camera: its picture, the time bar below it, and the calendar.
import { useEffect, useRef, useState } from "preact/hooks";
import { AGAIN, ApiError, type Camera, NEVER, get, isFinal } from "./api";
import { go } from "./app";
import { type Skipped, type View, carried, following, gapNear, newest, zoomedAt } from "./bar";
import { Calendar } from "./calendar";
import { Frames } from "./frames";
import { AddCamera, useCameras } from "./group";
import { address, followed, useHeld } from "./link";
import { now as present } from "./now";
import { Player } from "./player";
import { lookForGap } from "./search";
import { pause, whileSeen } from "./seen";
import { askForToken, loggedIn } from "./session";
import { Table } from "./table";
import { Take, type TakeKeys } from "./take";
import { type Grip, Legend, TimeBar } from "./timebar";
import { HOUR, dayAfter, dayBegins, dayOf, iso, span, zone } from "./time";
import { codecs, skippedOver } from "./words";
import { Fault, NOTHING, Offline, Peek, SPEEDS, When, noGap, useKeys, useTimelines, useZone, withReason } from "./viewing";

export function Watch({ camera, at: asked }: { camera: string; at: number | null }) {
  const video = useRef<HTMLVideoElement>(null);
  const player = useRef<Player | null>(null);
  const frames = useRef<Frames | null>(null);
  const grip = useRef<Grip>({ isDown: false, isHeld: false });
  /** The instant that was shown last; `undefined`: the view moves to the next one. */
  const head = useRef<number | undefined>(undefined);
  /** Where the user or the address went last. */
  const picked = useRef(asked);
  /** Counts the user's moves: a newer one ends a search for a gap, and the start. */
  const picks = useRef(0);
  const takeKeys = useRef<TakeKeys | null>(null);
  const [at, setAt] = useState(asked ?? present());
  /** Whether `at` is the instant of the picture. False while another one is requested. */
  const [isThere, setThere] = useState(false);
  const [playing, setPlaying] = useState(false);
  const [speed, setSpeed] = useState(1);
  const [said, setSaid] = useState<string | Skipped>("");
  const [leftOut, setLeftOut] = useState<string[]>([]);
  const [peeked, setPeeked] = useState<number | null>(null);
  const [view, setView] = useState<View>(() => ({ from: (asked ?? present()) - HOUR * 0.8, to: (asked ?? present()) + HOUR * 0.2 }));
  const [now, setNow] = useState(present());
  const [isUtc, setUtc] = useState(false);
  const { timelines: [timeline = NOTHING], covered, fault, isSlow } = useTimelines([camera], view, now);
  const name = useCameras().find(({ id }) => id === camera)?.name ?? camera;

  useEffect(() => {
    document.title = name;
  }, [name]);
  useZone(camera, isUtc);
  useHeld(isThere ? address(camera, at) : undefined, !playing);

  useEffect(() => {
    const stop = whileSeen(() => setNow(present()), 10_000);
    if (!video.current) return;
    const made = new Player(video.current, camera, {
      moved: (instant, isPlaying) => {
        setAt(instant);
        setThere(true);
        setPlaying(isPlaying);
        if (!isPlaying || grip.current.isDown) return;
        const before = head.current;
        head.current = instant;
        setView((known) => carried(known, before, instant, grip.current.isHeld));
      },
      said: setSaid,
      leftOut: setLeftOut,
    });
    player.current = made;
    const shown = new Frames(video.current);
    frames.current = shown;
    let isOver = false;
    void start(made, camera, asked, setSaid, () => isOver, () => picks.current > 0);
    return () => {
      isOver = true;
      stop();
      made.close();
      shown.close();
      player.current = null;
    };
  }, [camera]);
  // The user went back or forward in the browser's history.
  useEffect(() => {
    // An address has whole milliseconds, so the instants differ by a fraction.
    const isPicked = asked !== null && picked.current !== null && Math.abs(asked - picked.current) < 2;
    picked.current = asked;
    if (asked !== null && !isPicked && Math.abs(asked - (player.current?.at() ?? asked)) > 1500) void player.current?.seek(asked);
  }, [asked]);
  // Clear a message some seconds after the picture plays again.
  useEffect(() => {
    if (!said || !playing) return;
    const timer = setTimeout(() => setSaid(""), 6000);
    return () => clearTimeout(timer);
  }, [said, playing]);
  useEffect(() => {
    // A video that loads another window starts at the default rate.
    if (video.current) video.current.defaultPlaybackRate = video.current.playbackRate = speed;
  }, [speed, playing]);

  /** Lets the view follow the picture again, and ends a search for a gap. */
  const letGo = () => {
    grip.current.isHeld = false;
    head.current = undefined;
    picks.current++;
    setThere(false);
    setPeeked(null);
  };
  const pick = (instant: number) => {
    letGo();
    const to = Math.max(0, instant);
    picked.current = to;
    setAt(to);
    setView((known) => following(known, to));
    go(address(camera, to), true);
    void player.current?.seek(Math.min(to, Math.max(player.current.at() ?? 0, newest([timeline], present()))));
  };
  const goLive = () => {
    letGo();
    setSpeed(1);
    void player.current?.follow();
  };
  const toggle = () => {
    if (video.current?.paused) void player.current?.play();
    else video.current?.pause();
  };
  const frame = (direction: 1 | -1) => frames.current?.step(direction);
  const toGap = (direction: 1 | -1) => {
    const near = gapNear(timeline, covered, at, direction);
    if (near !== undefined) return pick(near - 5000);
    const mine = ++picks.current;
    void lookForGap(camera, at, direction).then((start) => {
      if (mine !== picks.current) return;
      if (start !== undefined) pick(start - 5000);
      else setSaid(noGap(direction));
    }, (error: Error) => mine === picks.current && setSaid(error.message));
  };
  const actions: Record<string, () => void> = {
    " ": toggle, k: toggle, j: () => pick(at - 10_000), l: () => pick(at + 10_000),
    ",": () => frame(-1), ".": () => frame(1), ArrowLeft: () => pick(at - 5000), ArrowRight: () => pick(at + 5000),
    n: () => toGap(1), p: () => toGap(-1),
    "[": () => takeKeys.current?.from(), "]": () => takeKeys.current?.to(), e: () => takeKeys.current?.take(),
    "+": () => setView(zoomedAt(view, 0.5, at)), "-": () => setView(zoomedAt(view, 2, at)),
  };
  useKeys(actions);

  return (
    <>
      <header class="top">
        <a class="back" href="/" onClick={followed}>← Cameras</a>
        <h1 tabIndex={-1}>{name}</h1>
        {name !== camera && <p class="quiet id">{camera}</p>}
        <AddCamera cameras={[camera]} at={at} />
      </header>
      <main class="watch">
        <Offline />
        <div class="screen">
          <video ref={video} playsInline muted onClick={toggle} aria-label={`Recording of ${camera}`} />
          {peeked !== null && <Peek camera={camera} at={peeked} timeline={timeline} />}
          {said && <p class="said" role="status">{typeof said === "string" ? said : skippedOver(withReason(said, [timeline]))}</p>}
        </div>
        {leftOut.length > 0 && <p class="quiet" role="note">{codecs(leftOut)} does not play here and is left out. A download "as recorded" has it.</p>}
        <When at={peeked ?? at} isUtc={isUtc} setUtc={setUtc}>
          {player.current?.showsLive() && playing && <span class="live"> live, {span(Math.max(0, present() - at) / 1000)} behind</span>}
        </When>
        <TimeBar view={view} setView={setView} lanes={[{ name, timeline }]} at={peeked ?? at} now={now} covered={covered} peek={setPeeked} grip={grip} pick={pick} />
        <Fault what="What is recorded" fault={fault} isSlow={isSlow} />
        <Legend isPending={timeline.pending.length > 0} />
        <div class="controls">
          <button type="button" onClick={toggle}>{playing ? "Pause" : "Play"}</button>
          <button type="button" onClick={() => pick(at - 10_000)} title="10 seconds back (j)">−10 s</button>
          <button type="button" onClick={() => pick(at + 10_000)} title="10 seconds on (l)">+10 s</button>
          <button type="button" onClick={() => frame(-1)} title="One frame back (,)">‹ frame</button>
          <button type="button" onClick={() => frame(1)} title="One frame on (.)">frame ›</button>
          <button type="button" onClick={() => toGap(-1)}>Previous gap</button>
          <button type="button" onClick={() => toGap(1)}>Next gap</button>
          <label>Speed <select class="numbers" value={speed} onChange={(event) => setSpeed(Number(event.currentTarget.value))}>
            {SPEEDS.map((value) => <option key={value} value={value}>{value}×</option>)}
          </select></label>
          <button type="button" onClick={() => setView(zoomedAt(view, 0.5, at))} aria-label="Zoom in">+</button>
          <button type="button" onClick={() => setView(zoomedAt(view, 2, at))} aria-label="Zoom out">−</button>
          <button type="button" onClick={goLive}>Live</button>
          <button type="button" onClick={() => video.current && !still(video.current, camera, at) && setSaid("there is no picture yet")}>Save picture</button>
          <label class="check"><input type="checkbox" onChange={(event) => { if (video.current) video.current.muted = !event.currentTarget.checked; }} /> Sound</label>
        </div>
        <Take camera={camera} at={at} keys={takeKeys} />
        <Calendar key={zone()} camera={camera} at={at} pick={(day) => { setView({ from: day, to: dayBegins(dayAfter(dayOf(day))) }); pick(day); }} />
        <Table timeline={timeline} covered={covered} pick={pick} />
        <p class="quiet keys">Keys: space plays and pauses, j l ten seconds, arrows five, , . one frame, n p gaps, + − zoom, [ ] mark a range, e takes it away.</p>
      </main>
    </>
  );
}

/**
 * Starts where the address says, else a minute before the end of what is stored, unless the user went somewhere meanwhile.
 * Waits for a camera that has stored nothing yet.
 */
async function start(player: Player, camera: string, asked: number | null, said: (text: string) => void, isOver: () => boolean, hasPicked: () => boolean): Promise<void> {
  if (asked !== null) return player.seek(asked);
  while (!isOver()) {
    const all = await get<Camera[]>("/api/cameras").catch((error: Error) => error);
    if (isOver() || (hasPicked() && player.at() !== undefined)) return;
    if (all instanceof Error) {
      if (all instanceof ApiError && all.status === 401) {
        askForToken();
        await loggedIn();
        continue;
      }
      if (all instanceof ApiError && isFinal(all.status)) return said(all.message);
      said(`${all.message}; it is tried again`);
    } else {
      const known = all.find(({ id }) => id === camera);
      if (known?.last_stored) return player.seek(Date.parse(known.last_stored) - 60_000);
      if (!known) return said("there is no such camera in the bucket");
      said(NEVER);
    }
    await pause(AGAIN);
  }
}

/** Downloads the picture that is shown; returns false if there is none. */
function still(video: HTMLVideoElement, camera: string, at: number): boolean {
  if (video.readyState < 2 || video.videoWidth === 0) return false;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d")?.drawImage(video, 0, 0);
  const link = document.createElement("a");
  link.download = `${camera.replaceAll(/[^\w.-]+/g, "_")}_${iso(at).replaceAll(":", "")}.png`;
  link.href = canvas.toDataURL("image/png");
  link.click();
  return true;
}
