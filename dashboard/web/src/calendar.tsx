// The calendar of a month: how much of each day is recorded.
import { useState } from "preact/hooks";
import { useAnswer } from "./answer";
import { type Day, get } from "./api";
import { dayBegins, dayOf, monthName, span, zone } from "./time";
import { Fault } from "./viewing";

const monthOf = (at: number): string => dayOf(at).slice(0, 7);

const shifted = (month: string, by: number): string => {
  const [year = 0, number = 1] = month.split("-").map(Number);
  return new Date(Date.UTC(year, number - 1 + by, 1)).toISOString().slice(0, 7);
};

export function Calendar({ camera, at, pick }: { camera: string; at: number; pick: (midnight: number) => void }) {
  const [month, setMonth] = useState(monthOf(at));
  const [open, setOpen] = useState(false);
  const ask = (signal: AbortSignal) => (open ? get<Day[]>("/api/days", { camera, month, tz: zone() }, signal) : Promise.resolve([]));
  const { answer, fault } = useAnswer(JSON.stringify([camera, month, open]), ask);
  const days = answer ?? [];
  const first = (new Date(`${month}-01T00:00:00Z`).getUTCDay() + 6) % 7;
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>Calendar</summary>
      <Fault what="The month" fault={fault} />
      <div class="month">
        <button type="button" onClick={() => setMonth(shifted(month, -1))} aria-label="Previous month">‹</button>
        <strong>{monthName(month, true)}</strong>
        <button type="button" onClick={() => setMonth(shifted(month, 1))} aria-label="Next month">›</button>
      </div>
      <ol class="days">
        {Array.from({ length: first }, (_, index) => <li key={`before${index}`} aria-hidden="true" />)}
        {days.map(({ day, recorded_s, gap_s }) => {
          const at = dayBegins(day);
          // A day has 23 to 25 hours: 26 hours after its begin is always the next day.
          const share = Math.min(1, (recorded_s * 1000) / (dayBegins(dayOf(at + 26 * 3_600_000)) - at));
          return (
            <li key={day}>
              <button type="button" disabled={recorded_s === 0} onClick={() => pick(at)} aria-label={`${Number(day.slice(8))} ${monthName(month, false)}: ${span(recorded_s)} recorded${gap_s ? `, ${span(gap_s)} missing` : ""}`}>
                {Number(day.slice(8))}
                <meter min={0} max={1} value={share} aria-hidden="true" />
                <span class={gap_s > 0 ? "dot" : "dot none"} aria-hidden="true" />
              </button>
            </li>
          );
        })}
      </ol>
    </details>
  );
}
