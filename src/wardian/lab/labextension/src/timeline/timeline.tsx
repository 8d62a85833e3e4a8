import * as React from 'react';

import type { IEntry } from '../environment/types';
import { messageOf, usePanel, useSignal } from '../panel/context';
import { byName, moment, span, statusName } from '../panel/names';
import { type ILane, lanes, ticks } from './lanes';

const LIMIT = 300;
const ROW = 22;
const ZOOM = 1.4;
const SHORTEST = 0.05;
/** How much of the width an arrow key moves. */
const STEP = 0.2;

interface IWindow {
  from: number;
  to: number;
}

/** The journal as bars on one time axis, a lane for each node. */
export function Timeline(): React.ReactElement {
  const { live, server, trans } = usePanel();
  useSignal(live.changed);
  const kinds: Record<IEntry['kind'], string> = {
    operation: trans.__('Operations'),
    run: trans.__('Runs'),
    cell: trans.__('Cells'),
    transfer: trans.__('Transfers'),
    event: trans.__('Events')
  };
  const [page, setPage] = React.useState<{ entries: IEntry[]; before?: string }>({ entries: [] });
  const [trouble, setTrouble] = React.useState('');
  const [hidden, setHidden] = React.useState<ReadonlySet<string>>(new Set());
  const [text, setText] = React.useState('');
  const [chosen, setChosen] = React.useState('');
  const [zoomed, setZoomed] = React.useState<IWindow | null>(null);
  const load = async (before?: string): Promise<void> => {
    try {
      const query = { path: live.path, limit: LIMIT, ...(before ? { before } : {}) };
      const more = await server.get<{ entries: IEntry[]; before?: string }>('journal', query);
      setPage(({ entries }) => ({ ...more, entries: [...more.entries, ...entries] }));
    } catch (error) {
      setTrouble(messageOf(error));
    }
  };
  React.useEffect(() => void load(), []);

  const all = new Map([...page.entries, ...live.entries, ...Object.values(live.state?.running ?? {})].map(entry => [entry.id, entry]));
  const words = text.toLowerCase();
  const shown = [...all.values()]
    .filter(
      entry =>
        !hidden.has(entry.kind) &&
        [entry.summary, statusName(entry.status, trans), ...entry.nodes].some(value => value.toLowerCase().includes(words))
    )
    .sort((one, other) => one.started - other.started);
  const now = Date.now() / 1000;
  const whole = {
    from: Math.min(now - 1, ...shown.map(entry => entry.started)),
    to: Math.max(...shown.map(entry => entry.ended ?? now), -Infinity)
  };
  const margin = Math.max(0.02 * (whole.to - whole.from), 0.5);
  const seen = zoomed ?? (shown.length ? { from: whole.from - margin, to: whole.to + margin } : { from: now - 60, to: now });
  const names = new Set([
    ...Object.keys(live.state?.nodes ?? {}),
    ...shown.filter(entry => entry.kind === 'cell').flatMap(entry => entry.nodes)
  ]);
  const zoom = (factor: number, at = 0.5): void => {
    const width = Math.max(SHORTEST, (seen.to - seen.from) / factor);
    const point = seen.from + at * (seen.to - seen.from);
    setZoomed({ from: point - at * width, to: point + (1 - at) * width });
  };
  const move = (part: number): void => {
    const by = part * (seen.to - seen.from);
    setZoomed({ from: seen.from + by, to: seen.to + by });
  };
  const entry = all.get(chosen);
  return (
    <div className="wardian-Timeline">
      <div className="wardian-Bar wardian-Timeline-bar">
        <input
          type="search"
          placeholder={trans.__('Filter by text or node')}
          aria-label={trans.__('Filter by text or node')}
          value={text}
          onChange={event => setText(event.target.value)}
        />
        {(Object.keys(kinds) as IEntry['kind'][]).map(kind => (
          <label key={kind} className="wardian-Check">
            <input
              type="checkbox"
              checked={!hidden.has(kind)}
              onChange={() => {
                const next = new Set(hidden);
                if (!next.delete(kind)) {
                  next.add(kind);
                }
                setHidden(next);
              }}
            />
            <span className={`wardian-Timeline-key wardian-kind-${kind}`} aria-hidden="true" />
            {kinds[kind]}
          </label>
        ))}
        <button className="wardian-Button" aria-label={trans.__('Zoom in')} onClick={() => zoom(ZOOM)}>
          +
        </button>
        <button className="wardian-Button" aria-label={trans.__('Zoom out')} onClick={() => zoom(1 / ZOOM)}>
          −
        </button>
        <button className="wardian-Button" aria-label={trans.__('Show all')} onClick={() => setZoomed(null)}>
          ⤢
        </button>
        {page.before ? (
          <button className="wardian-Button" onClick={() => void load(page.before)}>
            {trans.__('What came earlier')}
          </button>
        ) : null}
      </div>
      {trouble ? <p className="wardian-mod-warning">{trouble}</p> : null}
      {shown.length ? (
        <Chart
          lanes={lanes(shown, [...names].sort(byName), now)}
          order={shown}
          seen={seen}
          now={now}
          chosen={chosen}
          onChoose={setChosen}
          onZoom={zoom}
          onMove={move}
          onFit={() => setZoomed(null)}
        />
      ) : (
        <p className="wardian-Empty">{trans.__('Nothing has happened yet.')}</p>
      )}
      {entry ? <EntryDetails entry={entry} kind={kinds[entry.kind]} onClose={() => setChosen('')} /> : null}
    </div>
  );
}

interface IChartProps {
  lanes: ILane[];
  order: IEntry[];
  seen: IWindow;
  now: number;
  chosen: string;
  onChoose: (id: string) => void;
  onZoom: (factor: number, at?: number) => void;
  onMove: (part: number) => void;
  onFit: () => void;
}

function Chart(props: IChartProps): React.ReactElement {
  const { lanes: all, order, seen, now, chosen, onChoose, onZoom, onMove, onFit } = props;
  const { trans } = usePanel();
  const chart = React.useRef<HTMLDivElement>(null);
  const drag = React.useRef<number | null>(null);
  const [focused, setFocused] = React.useState('');
  const place = (time: number): number => (100 * (time - seen.from)) / (seen.to - seen.from);
  const tab = [focused, chosen].find(id => order.some(entry => entry.id === id)) ?? order.at(-1)!.id;
  const going = React.useRef(false);
  React.useEffect(() => {
    if (going.current) {
      going.current = false;
      chart.current!.querySelector<HTMLElement>(`[data-entry="${CSS.escape(focused)}"]`)?.focus();
    }
  }, [focused]);
  React.useEffect(() => {
    const element = chart.current!;
    const onWheel = (event: WheelEvent): void => {
      if (event.ctrlKey || event.metaKey) {
        event.preventDefault();
        const box = element.querySelector('.wardian-Timeline-bars')!.getBoundingClientRect();
        onZoom(Math.exp(-event.deltaY / 400), (event.clientX - box.left) / box.width);
      }
    };
    element.addEventListener('wheel', onWheel, { passive: false });
    return () => element.removeEventListener('wheel', onWheel);
  });
  const onKeyDown = (event: React.KeyboardEvent): void => {
    const at = order.findIndex(entry => entry.id === tab);
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    // about what has the focus, so that it stays in sight
    const about = Math.min(1, Math.max(0, place(order[at]!.started) / 100));
    if (way && event.shiftKey) {
      onMove(way * STEP);
    } else if (way) {
      const next = order[Math.max(0, Math.min(order.length - 1, at + way))]!;
      const where = place(next.started) / 100;
      if (where < 0 || where > 1) {
        onMove(where - 0.5);
      }
      going.current = true;
      setFocused(next.id);
    } else if (event.key === '+' || event.key === '=') {
      onZoom(ZOOM, about);
    } else if (event.key === '-') {
      onZoom(1 / ZOOM, about);
    } else if (event.key === '0') {
      onFit();
    } else {
      return;
    }
    event.preventDefault();
  };
  return (
    <div
      className="wardian-Timeline-chart"
      ref={chart}
      role="group"
      aria-label={trans.__('Journal: arrow keys go from entry to entry, plus, minus and 0 zoom, shift and arrow keys move')}
      onKeyDown={onKeyDown}
      onPointerDown={event => {
        drag.current = event.clientX;
      }}
      onPointerMove={event => {
        if (drag.current === null || !event.buttons) {
          drag.current = null;
        } else if (Math.abs(event.clientX - drag.current) > 3) {
          onMove((drag.current - event.clientX) / chart.current!.querySelector('.wardian-Timeline-bars')!.clientWidth);
          drag.current = event.clientX;
        }
      }}
    >
      <div className="wardian-Timeline-lane wardian-mod-axis" aria-hidden="true">
        <span className="wardian-Timeline-name" />
        <div className="wardian-Timeline-bars">
          {ticks(seen.from, seen.to, 8).map(time => (
            <span key={time} className="wardian-Timeline-tick" style={{ insetInlineStart: `${place(time)}%` }}>
              {moment(time)}
            </span>
          ))}
        </div>
      </div>
      {all.map(lane => (
        <div key={lane.node} className="wardian-Timeline-lane" role="group" aria-label={lane.node || trans.__('the environment')}>
          <span className="wardian-Timeline-name">{lane.node || trans.__('environment')}</span>
          <div className="wardian-Timeline-bars" style={{ height: lane.rows * ROW }}>
            {lane.bars.map(({ entry, row }) => {
              const [from, to] = [place(entry.started), place(entry.ended ?? now)];
              // what has the focus would lose it if it were not there
              return (to < 0 || from > 100) && entry.id !== tab ? null : (
                <Bar
                  key={entry.id}
                  entry={entry}
                  left={to < 0 ? -2 : Math.min(102, Math.max(0, from))}
                  width={Math.max(0, Math.min(100, to) - Math.max(0, from))}
                  row={row}
                  chosen={entry.id === chosen}
                  tab={entry.id === tab}
                  onChoose={onChoose}
                  onFocus={setFocused}
                />
              );
            })}
          </div>
        </div>
      ))}
    </div>
  );
}

interface IBarProps {
  entry: IEntry;
  left: number;
  width: number;
  row: number;
  chosen: boolean;
  tab: boolean;
  onChoose: (id: string) => void;
  onFocus: (id: string) => void;
}

const Bar = React.memo(function Bar(props: IBarProps): React.ReactElement {
  const { entry, left, width, row, chosen, tab, onChoose, onFocus } = props;
  const { trans } = usePanel();
  const words = `${entry.summary}, ${statusName(entry.status, trans)}, ${moment(entry.started)}`;
  return (
    <button
      className={`wardian-Timeline-entry wardian-kind-${entry.kind} wardian-status-${entry.status}`}
      data-entry={entry.id}
      style={{ insetInlineStart: `${left}%`, width: `${width}%`, top: row * ROW }}
      title={words}
      aria-label={words}
      aria-pressed={chosen}
      tabIndex={tab ? 0 : -1}
      onClick={() => onChoose(entry.id)}
      onFocus={() => onFocus(entry.id)}
    />
  );
});

function EntryDetails({ entry, kind, onClose }: { entry: IEntry; kind: string; onClose: () => void }): React.ReactElement {
  const { trans, commands } = usePanel();
  const { notebook, cell, source } = entry.detail as { notebook?: string; cell?: string; source?: string };
  return (
    <section className="wardian-Details" aria-label={trans.__('Entry')}>
      <header className="wardian-Details-header">
        <h3>
          {kind}: {entry.summary}
        </h3>
        <button className="wardian-Button" aria-label={trans.__('Close')} onClick={onClose}>
          ✕
        </button>
      </header>
      <p>
        {statusName(entry.status, trans)} · {moment(entry.started)}
        {entry.ended ? ` · ${span(entry.ended - entry.started)}` : ''}
        {entry.nodes.length ? ` · ${entry.nodes.join(', ')}` : ''}
      </p>
      {entry.error ? <p className="wardian-mod-warning">{entry.error}</p> : null}
      {source ? (
        <pre className="wardian-Log" tabIndex={0} aria-label={trans.__('Source')}>
          {source}
        </pre>
      ) : null}
      {notebook && cell ? (
        <button className="wardian-Button" onClick={() => void commands.execute('wardian:show-cell', { notebook, cell })}>
          {trans.__('Show the cell')}
        </button>
      ) : null}
    </section>
  );
}
