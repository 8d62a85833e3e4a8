import type { TranslationBundle } from '@jupyterlab/translation';

import type { ICellState, IProgress } from '../watch/watch';

const SIGNS: Record<string, string> = {
  queued: '⋯',
  starting: '⋯',
  running: '▶',
  done: '✓',
  failed: '✗',
  interrupted: '■',
  'timed out': '✗',
  aborted: '–',
  'not run': '–'
};

/** Whether a state is one that time goes on in. */
export function isGoing(state: ICellState | undefined): boolean {
  return state !== undefined && ['queued', 'starting', 'running'].includes(state.state);
}

/** How a node fares, as of now: one that waited when its cell ended was not run. */
export function stateOf(cell: ICellState, node: string): string {
  const state = cell.nodes[node]?.state ?? 'queued';
  return !isGoing(cell) && state === 'queued' ? 'not run' : state;
}

/** A sign, a word and how long it took, or takes until now. */
export function words(state: string, progress: IProgress | undefined, trans: TranslationBundle): string {
  const name: Record<string, string> = {
    queued: trans.__('queued'),
    starting: trans.__('starting'),
    running: trans.__('running'),
    done: trans.__('done'),
    failed: trans.__('failed'),
    interrupted: trans.__('interrupted'),
    'timed out': trans.__('timed out'),
    aborted: trans.__('not run'),
    'not run': trans.__('not run')
  };
  const time = progress?.seconds === undefined ? '' : ` ${seconds(elapsed(state, progress))}`;
  return `${SIGNS[state] ?? ''} ${name[state] ?? state}${time}`.trim();
}

/** Several nodes in one line: how many are in which state. */
export function summary(cell: ICellState, trans: TranslationBundle): string {
  const counts = new Map<string, number>();
  for (const node of Object.keys(cell.nodes)) {
    const state = stateOf(cell, node);
    counts.set(state, (counts.get(state) ?? 0) + 1);
  }
  return [...counts].map(([state, count]) => `${count} ${words(state, undefined, trans)}`).join(', ');
}

function elapsed(state: string, progress: IProgress): number {
  const since = state === 'running' ? (performance.now() - progress.at) / 1000 : 0;
  return (progress.seconds ?? 0) + since;
}

/** A span of time in words. value: seconds. */
export function seconds(value: number): string {
  if (value < 0.1) {
    return `${Math.round(value * 1000)} ms`;
  }
  if (value < 10) {
    return `${value.toFixed(1)} s`;
  }
  return value < 100 ? `${Math.round(value)} s` : `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
}
