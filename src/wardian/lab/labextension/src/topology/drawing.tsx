import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { IEnvironment } from '../environment/types';
import { flows } from '../panel/names';
import type { ISelection } from '../panel/selection';
import { fitting, useSize, useView } from './camera';
import { type IBox, type IPoint, layout } from './layout';
import { middleOf, pathOf } from './lines';
import { AccessLine, BlockFrame, ClusterFrame, FoldedSymbol, LinkLine, NetworkSymbol, NodeSymbol, TalkLine } from './shapes';
import { carriedBy, type IBlock, partnersOf, structure, widthOf, wordsOf, worst } from './symbols';

const STEP = 60;
const ZOOM = 1.25;
/** Below this scale names cannot be read, and are left out. */
const READABLE = 0.42;
/** So many groups and single nodes have names from afar, too. */
const LANDMARKS = 40;
/** Above so many nodes of their own, a network has a frame around them in place of a line to each. */
const CROWD = 24;

export interface ITopologyProps {
  state: IEnvironment;
  folds: ReadonlyMap<string, boolean>;
  selection: ISelection | null;
  /** What is searched for; all that does not match is dimmed. */
  matches: ReadonlySet<string> | null;
  /** Whether the wheel zooms by itself, as where nothing scrolls. */
  large: boolean;
  onSelect: (selection: ISelection | null) => void;
  onFold: (group: string, folded: boolean) => void;
  trans: TranslationBundle;
}

/** The topology of an environment as a drawing that is zoomed, panned, clicked, and walked through by the arrow keys. */
export function Topology(props: ITopologyProps): React.ReactElement {
  const { state, folds, selection, matches, large, onSelect, onFold, trans } = props;
  const svg = React.useRef<SVGSVGElement>(null);
  const { nodes, networks, links } = state;
  const plan = structure(state, folds);
  // places change only with what is drawn, not with its state
  const drawn = JSON.stringify(plan);
  const layouts = React.useMemo(() => ({ tall: layout(plan, true), wide: layout(plan, false) }), [drawn]);
  const size = useSize(svg);
  const [tall, wide] = [fitting(layouts.tall.bounds, size), fitting(layouts.wide.bounds, size)];
  const vertical = tall === wide ? !large : tall > wide;
  const places = vertical ? layouts.tall : layouts.wide;
  const view = useView(size, places.bounds);
  const { camera } = view;
  const crowded = new Set(plan.networks.filter(name => plan.blocks.filter(block => isLoneIn(block, name)).length > CROWD));

  const spots = new Map<string, IPoint>([
    ...Object.entries(places.networks).map(([name, box]) => [`network:${name}`, box] as const),
    ...plan.blocks
      .filter(block => block.folded || block.nodes.length > 1)
      .map(({ id, folded }) => [`group:${id}`, folded ? places.blocks[id]! : titleOf(places.blocks[id]!)] as const),
    ...Object.entries(places.nodes).map(([name, box]) => [`node:${name}`, box] as const),
    ...plan.links.map(({ name, ends: [one, other] }) => [`link:${name}`, middleOf(places, one, other, vertical)] as const)
  ]);
  const folded = new Map(plan.blocks.filter(block => block.folded).flatMap(({ id, nodes: of }) => of.map(node => [node, `group:${id}`])));
  // what has just gone talked a moment ago
  const symbolOf = (node: string): string | undefined => [folded.get(node), `node:${node}`].find(id => id && spots.has(id));
  const wanted = selection ? `${selection.kind}:${selection.name}` : '';
  const [focused, setFocused] = React.useState('');
  const reachable = [focused, wanted].find(id => spots.has(id)) ?? spots.keys().next().value;

  const searched = matches && sought([...spots.keys()].filter(id => matches.has(id)));
  React.useEffect(() => {
    if (searched) {
      view.center(spots.get(searched)!);
    }
  }, [searched]);

  React.useEffect(() => {
    const element = svg.current!;
    const onWheel = (event: WheelEvent): void => {
      if (large || event.ctrlKey || event.metaKey) {
        event.preventDefault();
        const box = element.getBoundingClientRect();
        view.zoom(Math.exp(-event.deltaY / 400), { x: event.clientX - box.left, y: event.clientY - box.top });
      }
    };
    element.addEventListener('wheel', onWheel, { passive: false });
    return () => element.removeEventListener('wheel', onWheel);
  });

  const dragged = React.useRef<IPoint | null>(null);
  const onPointerDown = (event: React.PointerEvent): void => {
    if (event.button === 0) {
      dragged.current = { x: event.clientX, y: event.clientY };
    }
  };
  const onPointerMove = (event: React.PointerEvent): void => {
    const from = dragged.current;
    if (!from || !event.buttons) {
      dragged.current = null;
    } else if (svg.current!.hasPointerCapture(event.pointerId) || Math.hypot(event.clientX - from.x, event.clientY - from.y) > 4) {
      svg.current!.setPointerCapture(event.pointerId);
      view.pan(event.clientX - from.x, event.clientY - from.y);
      dragged.current = { x: event.clientX, y: event.clientY };
    }
  };
  const focus = (id: string): void => {
    setFocused(id);
    svg.current!.querySelector<SVGElement>(`[data-id="${CSS.escape(id)}"]`)?.focus();
  };
  const onKeyDown = (event: React.KeyboardEvent): void => {
    if (event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    const way = ARROWS[event.key];
    if (way && event.shiftKey) {
      view.pan(-way.x * STEP, -way.y * STEP);
    } else if (way) {
      const from = spots.get(focused) ?? { x: camera.x, y: camera.y };
      const next = nearest(spots, focused, from, way);
      if (next) {
        focus(next);
        reveal(spots.get(next)!);
      }
    } else if (event.key === '+' || event.key === '=') {
      view.zoom(ZOOM);
    } else if (event.key === '-') {
      view.zoom(1 / ZOOM);
    } else if (event.key === '0') {
      view.fit();
    } else if (event.key === 'Escape' && selection) {
      onSelect(null);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };
  const reveal = (point: IPoint): void => {
    const across = (point.x - camera.x) * camera.scale;
    const down = (point.y - camera.y) * camera.scale;
    if (Math.abs(across) > size.width / 2 - 30 || Math.abs(down) > size.height / 2 - 30) {
      view.pan(-across, -down);
    }
  };

  const common = (kind: ISelection['kind'], name: string) => {
    const id = `${kind}:${name}`;
    return {
      id,
      kind,
      name,
      trans,
      selected: id === wanted,
      dim: !!matches && !matches.has(id),
      tab: id === reachable,
      onSelect,
      onFocus: setFocused
    };
  };
  return (
    <div className="wardian-Topology">
      <svg
        ref={svg}
        className={`wardian-Topology-drawing${camera.scale < READABLE ? ' wardian-mod-far' : ''}`}
        style={{ '--wardian-scale': camera.scale } as React.CSSProperties}
        role="group"
        aria-label={trans.__('Topology: arrow keys go from symbol to symbol, plus, minus and 0 zoom, shift and arrow keys move the view')}
        viewBox={size.width ? `${-size.width / 2} ${-size.height / 2} ${size.width} ${size.height}` : '0 0 1 1'}
        onPointerDown={onPointerDown}
        onPointerMove={onPointerMove}
        onKeyDown={onKeyDown}
      >
        <g transform={`scale(${camera.scale}) translate(${-camera.x} ${-camera.y})`}>
          {[...crowded].map(name => (
            <ClusterFrame key={name} box={places.clusters[name]!} />
          ))}
          {plan.blocks.flatMap(block => {
            const single = block.folded || (block.uniform && block.nodes.length > 1);
            const ends = single ? [{ id: block.id, box: places.blocks[block.id]!, networks: block.networks }] : [];
            const each = block.nodes.map(node => ({ id: node, box: places.nodes[node]!, networks: plan.memberships[node]! }));
            return (single ? ends : each).flatMap(({ id, box, networks: joined }) =>
              (crowded.has(joined[0] ?? '') && isLoneIn(block, joined[0]!) ? [] : joined).map(network => (
                <AccessLine
                  key={`${id}/${network}`}
                  from={box}
                  to={places.networks[network]!}
                  many={single ? block.nodes.length : 1}
                  width={widthOf(
                    (single ? block.nodes : [id]).reduce((sum, node) => sum + carriedBy(state.traffic, `${node}/${network}`), 0)
                  )}
                />
              ))
            );
          })}
          {plan.blocks
            .filter(block => block.nodes.length > 1 && !block.folded)
            .map(block => (
              <BlockFrame
                key={block.id}
                {...common('group', block.id)}
                box={places.blocks[block.id]!}
                count={block.nodes.length}
                onFold={onFold}
                state={worst(block.nodes.map(node => nodes[node]!.state))}
              />
            ))}
          {spots.has(wanted)
            ? [...partnersOf(state.talk, wanted, symbolOf)].map(([id, value]) => (
                <TalkLine key={id} from={spots.get(wanted)!} to={spots.get(id)!} width={widthOf(value)} />
              ))
            : null}
          {plan.links.map(({ name, ends: [one, other] }) => (
            <LinkLine
              key={name}
              {...common('link', name)}
              path={pathOf(places, one, other, vertical)}
              middle={middleOf(places, one, other, vertical)}
              words={wordsOf(links[name]!)}
              flow={flows(state.traffic?.[name], [one, other]).join(', ')}
              width={widthOf(carriedBy(state.traffic, name))}
              state={links[name]!.state}
            />
          ))}
          {plan.networks.map(name => (
            <NetworkSymbol key={name} {...common('network', name)} box={places.networks[name]!} state={networks[name]!.state} />
          ))}
          {plan.blocks.map(block =>
            block.folded ? (
              <FoldedSymbol
                key={block.id}
                {...common('group', block.id)}
                box={places.blocks[block.id]!}
                landmark={plan.blocks.length <= LANDMARKS}
                count={block.nodes.length}
                ready={block.nodes.filter(node => nodes[node]!.state === 'ready').length}
                onFold={onFold}
                state={worst(block.nodes.map(node => nodes[node]!.state))}
              />
            ) : (
              block.nodes.map(name => (
                <NodeSymbol
                  key={name}
                  {...common('node', name)}
                  box={places.nodes[name]!}
                  landmark={block.nodes.length === 1 && plan.blocks.length <= LANDMARKS}
                  state={nodes[name]!.state}
                  detail={nodes[name]!.detail ?? ''}
                />
              ))
            )
          )}
        </g>
      </svg>
      <div className="wardian-Topology-zoom" role="group" aria-label={trans.__('Zoom')}>
        <button className="wardian-Button" title={trans.__('Zoom in')} aria-label={trans.__('Zoom in')} onClick={() => view.zoom(ZOOM)}>
          +
        </button>
        <button
          className="wardian-Button"
          title={trans.__('Zoom out')}
          aria-label={trans.__('Zoom out')}
          onClick={() => view.zoom(1 / ZOOM)}
        >
          −
        </button>
        <button className="wardian-Button" title={trans.__('Show all')} aria-label={trans.__('Show all')} onClick={() => view.fit()}>
          ⤢
        </button>
      </div>
    </div>
  );
}

function isLoneIn({ nodes, networks }: IBlock, network: string): boolean {
  return nodes.length === 1 && networks.length === 1 && networks[0] === network;
}

/** Of what was found, what to bring into the middle: a node rather than the group that it is in, or its network. */
function sought(found: string[]): string | undefined {
  return found.find(id => id.startsWith('node:')) ?? found[0];
}

const ARROWS: Record<string, IPoint> = {
  ArrowLeft: { x: -1, y: 0 },
  ArrowRight: { x: 1, y: 0 },
  ArrowUp: { x: 0, y: -1 },
  ArrowDown: { x: 0, y: 1 }
};

/** The symbol that one comes to when going one way: the nearest, and rather one straight ahead. */
function nearest(spots: ReadonlyMap<string, IPoint>, from: string, start: IPoint, way: IPoint): string | null {
  let best: string | null = null;
  let least = Infinity;
  for (const [id, point] of spots) {
    const ahead = (point.x - start.x) * way.x + (point.y - start.y) * way.y;
    const aside = Math.abs((point.x - start.x) * way.y) + Math.abs((point.y - start.y) * way.x);
    if (id !== from && ahead > 1 && ahead + 2 * aside < least) {
      best = id;
      least = ahead + 2 * aside;
    }
  }
  return best;
}

function titleOf(box: IBox): IPoint {
  return { x: box.x, y: box.y - box.height / 2 + 12 };
}
