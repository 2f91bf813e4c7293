// Questions that are asked until they are answered.
import { useEffect, useRef, useState } from "preact/hooks";
import { AGAIN, ApiError, isFinal } from "./api";
import { onceSeen } from "./seen";
import { askForToken } from "./session";

/** After so long without an answer it is said that one is waited for, ms. */
const SLOW = 2000;

interface How {
  /** The last answer is shown until the next one comes. */
  isNear?: boolean;
  /** How long the question rests before it is asked, ms. */
  delay?: number;
  /** Counts what makes an answer old: it is asked for again, once the question that is on its way is answered. */
  news?: number;
}

/** Asks until it is answered, and tells what is wrong meanwhile; another question when the key changes. */
export function useAnswer<T>(key: string, ask: (signal: AbortSignal) => Promise<T>, { isNear = false, delay = 0, news = 0 }: How = {}): { answer: T | null; fault: string; isSlow: boolean } {
  const [known, setKnown] = useState<{ key: string; answer: T } | null>(null);
  const [fault, setFault] = useState("");
  const latest = useRef(ask);
  latest.current = ask;
  const renew = useRef(() => {});
  useEffect(() => {
    const stop = new AbortController();
    // It is to be asked, is on its way, is on its way and old already, or is answered.
    let state: "waits" | "runs" | "old" | "rests" = "waits";
    const attempt = () => {
      state = "runs";
      void latest.current(stop.signal).then(succeeded, failed);
    };
    let callOff = onceSeen(attempt, delay);
    const succeeded = (answer: T) => {
      if (stop.signal.aborted) return;
      setKnown({ key, answer });
      setFault("");
      if (state === "old") attempt();
      else state = "rests";
    };
    const failed = (error: Error) => {
      if (stop.signal.aborted) return;
      state = "waits";
      const status = error instanceof ApiError ? error.status : 0;
      if (status === 401) {
        addEventListener("logged-in", attempt, { once: true, signal: stop.signal });
        return void askForToken();
      }
      setFault(error instanceof ApiError ? `${error.message}. ${error.hint}` : error.message);
      if (!isFinal(status)) callOff = onceSeen(attempt, AGAIN);
    };
    renew.current = () => {
      if (state === "rests") attempt();
      else if (state === "runs") state = "old";
    };
    return () => {
      callOff();
      stop.abort();
    };
  }, [key]);
  useEffect(() => renew.current(), [news]);
  const isSlow = useSlow(known?.key !== key && !fault);
  // What answers another question is none to this one, unless it is near enough.
  return { answer: known && (isNear || known.key === key) ? known.answer : null, fault, isSlow };
}

/** Whether this has been so for a while. */
function useSlow(is: boolean): boolean {
  const [isSlow, setSlow] = useState(false);
  useEffect(() => {
    setSlow(false);
    if (!is) return;
    const timer = setTimeout(() => setSlow(true), SLOW);
    return () => clearTimeout(timer);
  }, [is]);
  return isSlow;
}
