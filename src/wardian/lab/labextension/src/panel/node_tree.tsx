import * as React from 'react';

import type { INode } from '../environment/types';
import { groupsOf, isFolded, worst } from '../topology/symbols';
import { usePanel } from './context';
import type { ISelection } from './selection';
import { StateMark } from './state_mark';

interface ITreeProps {
  nodes: Record<string, INode>;
  folds: ReadonlyMap<string, boolean>;
  selection: ISelection | null;
  matches: ReadonlySet<string> | null;
  onSelect: (selection: ISelection) => void;
  onFold: (group: string, folded: boolean) => void;
}

interface IRow {
  kind: 'node' | 'group';
  name: string;
  level: 1 | 2;
  members?: string[];
  folded?: boolean;
  group?: string;
}

/** The nodes by group, as a tree that the arrow keys walk through. */
export const NodeTree = React.memo(function NodeTree(props: ITreeProps): React.ReactElement {
  const { nodes, folds, selection, matches, onSelect, onFold } = props;
  const { trans } = usePanel();
  const tree = React.useRef<HTMLDivElement>(null);
  const rows = rowsOf(nodes, folds, matches);
  const wanted = selection ? `${selection.kind}:${selection.name}` : '';
  const [focused, setFocused] = React.useState('');
  const ids = rows.map(row => `${row.kind}:${row.name}`);
  const tab = [focused, wanted].find(id => ids.includes(id)) ?? ids[0];

  const go = (index: number): void => {
    const id = ids[Math.max(0, Math.min(ids.length - 1, index))];
    if (id) {
      setFocused(id);
      tree.current!.querySelector<HTMLElement>(`[data-id="${CSS.escape(id)}"]`)?.focus();
    }
  };
  const onKeyDown = (event: React.KeyboardEvent): void => {
    const at = ids.indexOf(tab ?? '');
    const row = rows[at];
    if (!row || event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    switch (event.key) {
      case 'ArrowDown':
        go(at + 1);
        break;
      case 'ArrowUp':
        go(at - 1);
        break;
      case 'Home':
        go(0);
        break;
      case 'End':
        go(ids.length - 1);
        break;
      case 'ArrowRight':
        row.folded ? onFold(row.name, false) : row.members && go(at + 1);
        break;
      case 'ArrowLeft':
        row.members && !row.folded ? onFold(row.name, true) : row.group && go(ids.indexOf(`group:${row.group}`));
        break;
      case 'Enter':
      case ' ':
        onSelect({ kind: row.kind, name: row.name });
        break;
      default:
        return;
    }
    event.preventDefault();
    event.stopPropagation();
  };

  if (!rows.length) {
    return <p className="wardian-Note">{matches ? trans.__('Nothing matches.') : trans.__('There are no nodes.')}</p>;
  }
  return (
    <div className="wardian-Tree" role="tree" aria-label={trans.__('Nodes')} ref={tree} onKeyDown={onKeyDown}>
      {rows.map((row, index) => {
        const id = ids[index]!;
        const shared = { id, selected: id === wanted, tab: id === tab, onSelect, onFocus: setFocused };
        if (row.members) {
          const states = row.members.map(member => nodes[member]!.state);
          const ready = states.filter(state => state === 'ready').length;
          return (
            <Group
              key={id}
              {...shared}
              name={row.name}
              count={row.members.length}
              ready={ready}
              worst={worst(states)}
              folded={row.folded!}
              onFold={onFold}
            />
          );
        }
        return <Node key={id} {...shared} name={row.name} node={nodes[row.name]!} level={row.level} />;
      })}
    </div>
  );
});

interface IRowProps {
  id: string;
  name: string;
  selected: boolean;
  tab: boolean;
  onSelect: (selection: ISelection) => void;
  onFocus: (id: string) => void;
}

const Node = React.memo(function Node(props: IRowProps & { node: INode; level: number }): React.ReactElement {
  const { id, name, node, level, selected, tab, onSelect, onFocus } = props;
  return (
    <div
      className="wardian-Tree-row"
      data-id={id}
      role="treeitem"
      aria-level={level}
      aria-selected={selected}
      tabIndex={tab ? 0 : -1}
      onClick={() => onSelect({ kind: 'node', name })}
      onFocus={() => onFocus(id)}
    >
      <span className="wardian-Tree-name">{name}</span>
      <span className="wardian-Tree-note">{Object.values(node.addresses)[0] ?? ''}</span>
      <StateMark state={node.state} detail={node.detail} />
    </div>
  );
});

const Group = React.memo(function Group(
  props: IRowProps & {
    count: number;
    ready: number;
    worst: INode['state'];
    folded: boolean;
    onFold: (group: string, folded: boolean) => void;
  }
): React.ReactElement {
  const { id, name, count, ready, worst, folded, selected, tab, onSelect, onFold, onFocus } = props;
  return (
    <div
      className="wardian-Tree-row wardian-mod-group"
      data-id={id}
      role="treeitem"
      aria-level={1}
      aria-expanded={!folded}
      aria-selected={selected}
      tabIndex={tab ? 0 : -1}
      onClick={() => onSelect({ kind: 'group', name })}
      onDoubleClick={() => onFold(name, !folded)}
      onFocus={() => onFocus(id)}
    >
      <span
        className="wardian-Tree-fold"
        aria-hidden="true"
        onClick={event => {
          event.stopPropagation();
          onFold(name, !folded);
        }}
      >
        {folded ? '▸' : '▾'}
      </span>
      <span className="wardian-Tree-name">{name}</span>
      <span className="wardian-Tree-note">{ready && ready < count ? `${ready} / ${count}` : `× ${count}`}</span>
      <StateMark state={worst} />
    </div>
  );
});

/** The rows that are shown. Where something is searched for, groups are open and hold what was found. */
function rowsOf(nodes: Record<string, INode>, folds: ReadonlyMap<string, boolean>, matches: ReadonlySet<string> | null): IRow[] {
  const rows: IRow[] = [];
  for (const [group, members] of groupsOf(nodes)) {
    const found = matches ? members.filter(member => matches.has(`node:${member}`)) : members;
    if (!found.length) {
      continue;
    }
    if (members.length === 1) {
      rows.push({ kind: 'node', name: members[0]!, level: 1 });
      continue;
    }
    const folded = !matches && isFolded(folds, group, members.length);
    rows.push({ kind: 'group', name: group, level: 1, members, folded });
    if (!folded) {
      rows.push(...found.map(name => ({ kind: 'node', name, level: 2, group }) as const));
    }
  }
  return rows;
}
