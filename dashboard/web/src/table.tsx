// The contents of the time bar as a table.
import { useMemo, useRef, useState } from "preact/hooks";
import type { Timeline } from "./api";
import { type View, parts } from "./bar";
import { now } from "./now";
import { moment, span, zone } from "./time";
import { reason } from "./words";

/** The most rows of the table. */
const ROWS = 200;

/**
 * The contents of the time bar as a table. `covered` is the span of the timeline, which cuts longer parts off at its ends.
 * The table is filled only while it is open, since there may be thousands of parts.
 */
export function Table({ timeline, covered, pick, of = "" }: { timeline: Timeline; covered: View; pick: (at: number) => void; of?: string }) {
  const [isOpen, setOpen] = useState(false);
  const latest = useRef(pick);
  latest.current = pick;
  const rows = useMemo(() => (isOpen ? <Rows timeline={timeline} covered={covered} pick={(at) => latest.current(at)} /> : null), [isOpen, timeline, covered.from, covered.to, zone()]);
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>Recorded ranges and gaps as a table{of && `: ${of}`}</summary>
      {rows}
    </details>
  );
}

function Rows({ timeline, covered, pick }: { timeline: Timeline; covered: View; pick: (at: number) => void }) {
  const near = now();
  const rows = [
    ...parts(timeline.ranges).map((part) => ({ ...part, what: "recorded" })),
    ...parts(timeline.pending).map((part) => ({ ...part, what: "recorded, not yet uploaded" })),
    ...parts(timeline.gaps).map((part, index) => ({ ...part, what: `gap: ${reason(timeline.gaps[index]?.reason ?? "unknown")}` })),
  ].sort((a, b) => a.from - b.from);
  return (
    <>
      <table>
        <thead><tr><th scope="col">From</th><th scope="col">To</th><th scope="col">Length</th><th scope="col">What</th></tr></thead>
        <tbody>
          {rows.slice(0, ROWS).map(({ from, to, what }) => {
            const [isEarlier, isLater] = [from <= covered.from, to >= covered.to];
            return (
              <tr key={from + what}>
                <td><button type="button" class="plain" onClick={() => pick(from)}>{moment(from, near)}</button>{isEarlier && " or earlier"}</td>
                <td>{moment(to, near)}{isLater && " or later"}</td>
                <td>{(isEarlier || isLater) && "at least "}{span((to - from) / 1000)}</td>
                <td>{what}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
      {rows.length > ROWS && <p class="quiet">{rows.length - ROWS} more are not shown: zoom in to see them.</p>}
    </>
  );
}
