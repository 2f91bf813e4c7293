// Exports a range: the server prepares the file while the page shows the progress, then the browser downloads it.
import { useEffect, useRef, useState } from "preact/hooks";
import { BY_SCRIPT, ApiError, answered, content, failure } from "./api";
import { HOUR, MINUTE, SECOND, clock, date, iso, span } from "./time";
import { askForToken, loggedIn } from "./session";

/** The answer of `/export/prepare`: chunks done and in total; the rest once the file can be downloaded. */
interface State { done: number; of: number; file?: string; manifest?: string; bytes?: number; name?: string }

const DAY = 24 * HOUR;
const pause = (ms: number) => new Promise((done) => setTimeout(done, ms));

/** Formats a size for people. */
const size = (bytes: number): string => (bytes < 1e6 ? `${Math.ceil(bytes / 1000)} kB` : bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`);

/** The actions of the keys [ ] e. */
export interface TakeKeys { from(): void; to(): void; take(): void }

export function Take({ camera, at, keys }: { camera: string; at: number; keys: { current: TakeKeys | null } }) {
  const whole = Math.floor(at / SECOND) * SECOND;
  const [from, setFrom] = useState<number | null>(null);
  const [to, setTo] = useState<number | null>(null);
  const [format, setFormat] = useState("mp4");
  const [state, setState] = useState<State | null>(null);
  const [fault, setFault] = useState("");
  const box = useRef<HTMLDetailsElement>(null);
  const turn = useRef(0);
  useEffect(() => () => void turn.current++, []);
  const end = to ?? whole;
  // If only an end is marked, the range is the minute before it, and does not follow the picture.
  const begin = from ?? Math.max(0, end - MINUTE);
  const length = end - begin;
  const isWrong = length <= 0 || length > DAY;
  const forget = () => {
    turn.current++;
    setState(null);
    setFault("");
  };
  const prepare = async () => {
    forget();
    const mine = turn.current;
    // Fix the range that is shown now: unmarked ends would follow the picture.
    setFrom(begin);
    setTo(end);
    const query = new URLSearchParams({ camera, from: iso(begin), to: iso(end), format });
    try {
      for (;;) {
        const response = await answered(fetch(`/export/prepare?${query}`, { method: "POST", headers: BY_SCRIPT }));
        if (turn.current !== mine) return;
        if (response.status === 401) {
          askForToken();
          await loggedIn();
          if (turn.current !== mine) return;
          continue;
        }
        if (!response.ok) throw await failure(response);
        const known = await content<State>(response);
        if (turn.current !== mine) return;
        setState(known);
        if (known.file) return download(known.file, known.name ?? "");
        await pause(500);
        if (turn.current !== mine) return;
      }
    } catch (error) {
      if (turn.current !== mine) return;
      setState(null);
      setFault(error instanceof ApiError ? `${error.message}. ${error.hint}` : (error as Error).message);
    }
  };
  const fromHere = () => {
    forget();
    setFrom(whole);
  };
  const toHere = () => {
    forget();
    setTo(whole);
  };
  const shown = (action: () => void) => () => {
    if (box.current) box.current.open = true;
    action();
  };
  keys.current = { from: shown(fromHere), to: shown(toHere), take: shown(() => { if (!isWrong && (!state || state.file)) void prepare(); }) };
  return (
    <details class="take" ref={box}>
      <summary>Take away a range</summary>
      <div class="controls">
        <button type="button" onClick={fromHere} title="Begin at the picture that is shown ([)">From here</button>
        <button type="button" onClick={toHere} title="End at the picture that is shown (])">To here</button>
        <label>Form <select value={format} onChange={(event) => { forget(); setFormat(event.currentTarget.value); }}>
          <option value="mp4">MP4, exactly the range</option>
          <option value="native">as recorded, whole chunks</option>
        </select></label>
        <button type="button" disabled={isWrong || (state !== null && !state.file)} onClick={() => void prepare()}>Download</button>
      </div>
      <p>
        <time dateTime={iso(begin)}>{clock(begin)}, {date(begin)}</time> to <time dateTime={iso(end)}>{clock(end)}, {date(end)}</time>
        {isWrong ? <span role="alert"> {length <= 0 ? "the end must be after the beginning" : "at most 24 hours at once"}</span> : `, ${span(length / 1000)}`}
      </p>
      {state && !state.file && <p><progress max={state.of} value={state.done} aria-label="Preparing" /> {state.done} of {state.of} chunks read</p>}
      {state?.file && <p><a href={state.file} download={state.name}>{state.name}</a> ({size(state.bytes ?? 0)}) · <a href={state.manifest} download>manifest</a>, which <code>gcstreamer-dashboard verify</code> compares with the file</p>}
      {fault && <p role="alert">{fault}</p>}
    </details>
  );
}

function download(address: string, name: string): void {
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
}
