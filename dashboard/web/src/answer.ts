// Requests that are repeated until they are answered.
import { useEffect, useRef, useState } from "preact/hooks";
import { AGAIN, ApiError, isFinal } from "./api";
import { onceSeen } from "./seen";
import { askForToken } from "./session";

/** How long a request may take before the page says that it is loading, ms. */
const SLOW = 2000;

interface How {
  /** Keeps the answer to the previous key until the new one arrives. */
  isNear?: boolean;
  /** How long to wait before the first attempt, ms: keys that change meanwhile send no request. */
  delay?: number;
  /** A change of this value makes the answer stale: it is requested again, after any request that is already running. */
  news?: number;
}

/**
 * Calls `ask` until it succeeds or fails for good, and reports the error meanwhile. A new `key` aborts the request and starts another one.
 * After a 401 it waits for the login. The first attempt and retries wait while the page is hidden.
 */
export function useAnswer<T>(key: string, ask: (signal: AbortSignal) => Promise<T>, { isNear = false, delay = 0, news = 0 }: How = {}): { answer: T | null; fault: string; isSlow: boolean } {
  const [known, setKnown] = useState<{ key: string; answer: T } | null>(null);
  const [fault, setFault] = useState("");
  const latest = useRef(ask);
  latest.current = ask;
  const renew = useRef(() => {});
  useEffect(() => {
    const stop = new AbortController();
    // waits: for its next attempt. runs: a request is running. old: so it is, and its answer is already stale. rests: answered.
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
  // An answer to another key is shown only with `isNear`.
  return { answer: known && (isNear || known.key === key) ? known.answer : null, fault, isSlow };
}

/** Returns whether `is` has been true for `SLOW` ms. */
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
