// A list of named numbers.

import type { ComponentChildren } from "preact";

export interface Figure {
  readonly label: string;
  readonly value: ComponentChildren;
}

export function Figures({ title, figures }: { title: string; figures: readonly Figure[] }) {
  return (
    <section id="stats_panel" class="card" aria-labelledby="stats-title">
      <h2 id="stats-title">{title}</h2>
      <dl class="figures">
        {figures.map(({ label, value }) => (
          <div key={label}>
            <dt>{label}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

/** One number with the element id that tests and scripts know it by. */
export function Value({ id, unit, children }: { id: string; unit?: string; children: number | string | undefined }) {
  return (
    <>
      <span id={id}>{children ?? "–"}</span>
      {unit && children !== undefined ? <small> {unit}</small> : null}
    </>
  );
}
