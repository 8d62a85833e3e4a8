import type { IEntry } from '../environment/types';

/** An entry in a lane; row: which of those beside each other, where several overlap. */
export interface IBar {
  entry: IEntry;
  row: number;
}

/** What concerns one node, or the environment as a whole (then the name is empty). */
export interface ILane {
  node: string;
  bars: IBar[];
  rows: number;
}

/** What concerns more nodes than that is about the whole. */
const FEW = 12;

/** Entries by node, in the order of `nodes`; what concerns none, or many, comes first. now: until when what runs is drawn, seconds. */
export function lanes(entries: readonly IEntry[], nodes: readonly string[], now: number): ILane[] {
  const known = new Set(nodes);
  const found = new Map<string, IEntry[]>([['', []], ...nodes.map(node => [node, []] as [string, IEntry[]])]);
  for (const entry of entries) {
    const about = entry.nodes.filter(name => known.has(name));
    const places = about.length && about.length <= FEW ? about : [''];
    places.forEach(place => found.get(place)!.push(entry));
  }
  return [...found].filter(([, inside]) => inside.length).map(([node, inside]) => ({ node, ...stacked(inside, now) }));
}

function stacked(entries: IEntry[], now: number): { bars: IBar[]; rows: number } {
  const ends: number[] = [];
  const bars = [...entries]
    .sort((one, other) => one.started - other.started)
    .map(entry => {
      const free = ends.findIndex(end => end <= entry.started);
      const row = free < 0 ? ends.length : free;
      ends[row] = entry.ended ?? now;
      return { entry, row };
    });
  return { bars, rows: ends.length };
}

/** Moments for the axis between two others, seconds: few enough to be read, at full seconds, minutes, hours. */
export function ticks(from: number, to: number, most: number): number[] {
  const steps = [0.001, 0.01, 0.1, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 86400, 7 * 86400, 30 * 86400, 365 * 86400];
  const step = steps.find(size => (to - from) / size <= most) ?? steps.at(-1)!;
  const first = Math.ceil(from / step);
  return Array.from({ length: Math.max(0, Math.floor(to / step) - first + 1) }, (_, index) => (first + index) * step);
}
