import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { State } from '../environment/types';
import { stateName } from '../panel/names';
import type { ISelection } from '../panel/selection';
import type { IBox, IPoint } from './layout';

/** What every symbol has. tab: whether the Tab key comes to it. */
interface ISymbolProps {
  id: string;
  kind: ISelection['kind'];
  name: string;
  state: State;
  selected: boolean;
  dim: boolean;
  /** Whether it has a name from afar, too. */
  landmark?: boolean;
  tab: boolean;
  onSelect: (selection: ISelection) => void;
  onFocus: (id: string) => void;
  trans: TranslationBundle;
}

const LONGEST_NAME = 15;

/** One node. */
export const NodeSymbol = React.memo(function NodeSymbol(props: ISymbolProps & { box: IBox; detail: string }): React.ReactElement {
  const { box, name, detail, state, trans } = props;
  return (
    <Symbol {...props} words={`${name}, ${trans.__('node')}, ${detail === 'paused' ? trans.__('paused') : stateName(state, trans)}`}>
      <circle className="wardian-Symbol-body" cx={box.x} cy={box.y - 9} r={13} />
      <text className="wardian-Symbol-mark" x={box.x} y={box.y - 9}>
        {detail === 'paused' ? '‖' : MARKS[state]}
      </text>
      <text className="wardian-Symbol-name" x={box.x} y={box.y + 17}>
        {short(name)}
      </text>
    </Symbol>
  );
}, same);

interface IFoldable {
  box: IBox;
  count: number;
  onFold: (group: string, folded: boolean) => void;
}

/** All nodes of a group. */
export const FoldedSymbol = React.memo(function FoldedSymbol(props: ISymbolProps & IFoldable & { ready: number }): React.ReactElement {
  const { box, name, count, ready, state, trans, onFold } = props;
  const left = box.x - 44;
  const top = box.y - 26;
  const how = state === 'absent' && !ready ? stateName(state, trans) : trans.__('%1 of %2 ready', ready, count);
  return (
    <Symbol {...props} words={`${name}, ${trans.__('group of %1 nodes', count)}, ${how}`} onDoubleClick={() => onFold(name, false)}>
      {[8, 4, 0].map(shift => (
        <rect key={shift} className="wardian-Symbol-body" x={left + shift} y={top - shift + 8} width={80} height={30} rx={5} />
      ))}
      <text className="wardian-Symbol-count" x={box.x - 4} y={box.y - 3}>
        {ready === count || !ready ? `× ${count}` : `${ready} / ${count}`}
      </text>
      <text className="wardian-Symbol-name" x={box.x} y={box.y + 24}>
        {short(name)}
      </text>
    </Symbol>
  );
}, same);

/** The frame around the nodes of a group. */
export const BlockFrame = React.memo(function BlockFrame(props: ISymbolProps & IFoldable): React.ReactElement {
  const { box, name, count, trans, onFold } = props;
  const left = box.x - box.width / 2;
  const top = box.y - box.height / 2;
  return (
    <Symbol {...props} words={`${name}, ${trans.__('group of %1 nodes', count)}`} onDoubleClick={() => onFold(name, true)}>
      <rect className="wardian-Symbol-frame" x={left} y={top} width={box.width} height={box.height} rx={8} />
      <text className="wardian-Symbol-title" x={left + 10} y={top + 14}>
        {`${name} × ${count}`}
      </text>
    </Symbol>
  );
}, same);

/** A network. */
export const NetworkSymbol = React.memo(function NetworkSymbol(props: ISymbolProps & { box: IBox }): React.ReactElement {
  const { box, name, state, trans } = props;
  return (
    <Symbol {...props} words={`${name}, ${trans.__('network')}, ${stateName(state, trans)}`}>
      <rect className="wardian-Symbol-network" x={box.x - box.width / 2} y={box.y - 14} width={box.width} height={28} rx={14} />
      <text className="wardian-Symbol-inner" x={box.x} y={box.y}>
        {short(name)}
      </text>
    </Symbol>
  );
}, same);

/** A link between two networks, with what it does. */
export const LinkLine = React.memo(function LinkLine(
  props: ISymbolProps & { path: string; middle: IPoint; words: string; flow: string; width: number }
): React.ReactElement {
  const { path, middle, name, words, flow, width, state, trans } = props;
  const parts = words.split(/[,;] /).filter(Boolean);
  return (
    <Symbol {...props} words={[name, trans.__('link'), words || stateName(state, trans), ...(flow ? [flow] : [])].join(', ')}>
      <path className="wardian-Line-area" d={path} />
      <path className="wardian-Line-link" d={path} />
      {width ? <path className="wardian-Line-flow" d={path} strokeWidth={width} /> : null}
      <text className="wardian-Line-name" x={middle.x} y={middle.y - 7}>
        {short(name)}
      </text>
      {parts.map((part, index) => (
        <text key={index} className="wardian-Line-words" x={middle.x} y={middle.y + 9 + 12 * index}>
          {part}
        </text>
      ))}
      {(flow ? flow.split(', ') : []).map((part, index) => (
        <text key={part} className="wardian-Line-words wardian-mod-flow" x={middle.x} y={middle.y + 9 + 12 * (parts.length + index)}>
          {part}
        </text>
      ))}
    </Symbol>
  );
}, same);

/** What is in a network. */
export const ClusterFrame = React.memo(function ClusterFrame({ box }: { box: IBox }): React.ReactElement {
  const [left, top] = [box.x - box.width / 2, box.y - box.height / 2];
  return <rect className="wardian-Cluster" x={left} y={top} width={box.width} height={box.height} rx={14} />;
}, same);

/** Nodes in a network. width: of a line that shows that it carries something. */
export const AccessLine = React.memo(function AccessLine({
  from,
  to,
  many,
  width
}: {
  from: IPoint;
  to: IPoint;
  many: number;
  width: number;
}): React.ReactElement {
  const path = `M${from.x},${from.y} L${to.x},${to.y}`;
  return (
    <>
      <path className={`wardian-Line-access${many > 1 ? ' wardian-mod-many' : ''}`} d={path} />
      {width ? <path className="wardian-Line-flow" d={path} strokeWidth={width} /> : null}
    </>
  );
}, same);

/** That one symbol talks to another one. */
export const TalkLine = React.memo(function TalkLine({ from, to, width }: { from: IPoint; to: IPoint; width: number }): React.ReactElement {
  return <path className="wardian-Line-talk" d={`M${from.x},${from.y} L${to.x},${to.y}`} strokeWidth={width} />;
}, same);

const MARKS: Record<State, string> = { ready: '', absent: '', incomplete: '…', stopped: '×', unreachable: '?' };

function Symbol(props: ISymbolProps & { words: string; onDoubleClick?: () => void; children: React.ReactNode }): React.ReactElement {
  const { id, kind, name, state, selected, dim, landmark, tab, words, onSelect, onFocus, onDoubleClick, children } = props;
  return (
    <g
      className={`wardian-Symbol wardian-state-${state}${dim ? ' wardian-mod-dim' : ''}${landmark ? ' wardian-mod-landmark' : ''}`}
      data-id={id}
      role="button"
      aria-label={words}
      aria-pressed={selected}
      tabIndex={tab ? 0 : -1}
      onClick={() => onSelect({ kind, name })}
      onDoubleClick={onDoubleClick}
      onFocus={() => onFocus(id)}
      onKeyDown={event => {
        if (event.key === 'Enter' || event.key === ' ') {
          event.preventDefault();
          onSelect({ kind, name });
        }
      }}
    >
      <title>{words}</title>
      {children}
    </g>
  );
}

/** Whether a symbol looks as before. Functions are left out: they do the same, whichever they are. */
function same<T extends object>(before: T, after: T): boolean {
  return (Object.keys(after) as (keyof T)[]).every(key => {
    const [one, other] = [before[key], after[key]];
    return (
      one === other ||
      typeof one === 'function' ||
      (isPoint(one) && isPoint(other) && one.x === other.x && one.y === other.y && one.width === other.width && one.height === other.height)
    );
  });
}

function isPoint(value: unknown): value is IBox {
  return typeof value === 'object' && value !== null && 'x' in value;
}

function short(name: string): string {
  return name.length > LONGEST_NAME ? `${name.slice(0, LONGEST_NAME - 6)}…${name.slice(-5)}` : name;
}
