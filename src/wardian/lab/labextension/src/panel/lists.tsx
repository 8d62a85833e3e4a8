import * as React from 'react';

import { undone } from '../actions/menu';
import type { IEnvironment, IFault, ILink, INetwork, IOpenPort, IService } from '../environment/types';
import { wordsOf } from '../topology/symbols';
import { messageOf, useAnswer, usePanel } from './context';
import { moment, named, rate, span, talks } from './names';
import type { ISelection } from './selection';
import { StateMark } from './state_mark';

interface IListProps<T> {
  items: Record<string, T>;
  selection: ISelection | null;
  onSelect: (selection: ISelection) => void;
}

/** The networks, with their subnets. */
export const NetworkList = React.memo(function NetworkList({ items, selection, onSelect }: IListProps<INetwork>): React.ReactElement {
  return (
    <ul className="wardian-List">
      {named(items).map(([name, network]) => (
        <Row key={name} kind="network" name={name} note={network.subnet ?? ''} selection={selection} onSelect={onSelect}>
          <StateMark state={network.state} detail={network.detail} />
        </Row>
      ))}
    </ul>
  );
});

/** The links, with what they do now. */
export const LinkList = React.memo(function LinkList({ items, selection, onSelect }: IListProps<ILink>): React.ReactElement {
  return (
    <ul className="wardian-List">
      {named(items).map(([name, link]) => (
        <Row key={name} kind="link" name={name} note={wordsOf(link)} selection={selection} onSelect={onSelect}>
          <StateMark state={link.state} />
        </Row>
      ))}
    </ul>
  );
});

/** Who sends how much to whom, all or to and from one node; a click selects the sender, there the other one. */
export function TalkList(props: {
  talk: IEnvironment['talk'];
  node?: string;
  onSelect: (selection: ISelection) => void;
}): React.ReactElement {
  const { talk, node, onSelect } = props;
  return (
    <ul className="wardian-List wardian-mod-long">
      {talks(talk, node === undefined ? undefined : [node]).map(({ from, to, value }) => (
        <li key={`${from} ${to}`}>
          <button className="wardian-Row" onClick={() => onSelect({ kind: 'node', name: from === node ? to : from })}>
            <span className="wardian-Row-name">{`${from} → ${to}`}</span>
            <span>{rate(value)}</span>
          </button>
        </li>
      ))}
    </ul>
  );
}

/** The services, each with its node. */
export const ServiceList = React.memo(function ServiceList(props: IListProps<IService>): React.ReactElement {
  const { items, selection, onSelect } = props;
  return (
    <ul className="wardian-List">
      {named(items).map(([name, service]) => (
        <Row key={name} kind="node" name={service.node} shown={name} note={service.detail ?? ''} selection={selection} onSelect={onSelect}>
          <StateMark state={service.state} detail={service.detail} />
        </Row>
      ))}
    </ul>
  );
});

/** The faults in force. */
export const FaultList = React.memo(function FaultList(props: { items: Record<string, IFault> }): React.ReactElement {
  const panel = usePanel();
  const { trans } = panel;
  const [trouble, setTrouble] = React.useState('');
  return (
    <ul className="wardian-List">
      {Object.entries(props.items).map(([id, fault]) => (
        <li key={id} className="wardian-Row">
          <span className="wardian-Row-name">{fault.text}</span>
          <span className="wardian-Row-note">
            {fault.until ? trans.__('until %1', moment(fault.until)) : trans.__('since %1, until it is undone', moment(fault.began))}
          </span>
          <button className="wardian-Button" onClick={() => undone(panel, id).catch((error: unknown) => setTrouble(messageOf(error)))}>
            {trans.__('Undo')}
          </button>
        </li>
      ))}
      {trouble ? <li className="wardian-mod-warning">{trouble}</li> : null}
    </ul>
  );
});

/** Ports of nodes, or of one node, that are open on the server's machine. */
export function PortList({ items, node }: { items: NonNullable<IEnvironment['ports']>; node?: string }): React.ReactElement {
  const { live, server, trans } = usePanel();
  const [refused, setRefused] = React.useState('');
  const asked = { path: live.path, instance: live.instance };
  // where a browser finds them is the server's to say
  const { answer, trouble } = useAnswer(
    () => server.get<{ ports: IOpenPort[] }>('environment/ports', asked),
    JSON.stringify([asked, items])
  );
  const shown = (answer?.ports ?? []).filter(port => port.id in items && (node === undefined || port.node === node));
  const close = (id: string): void => {
    server.request('DELETE', `ports/${id}`).then(
      () => setRefused(''),
      (error: unknown) => setRefused(messageOf(error))
    );
  };
  return (
    <ul className="wardian-List">
      {shown.map(port => (
        <li key={port.id} className="wardian-Row">
          <span className="wardian-Row-name">
            {port.node}:{port.port}
          </span>
          <button
            className="wardian-Button"
            aria-label={trans.__('Close port %1 of %2', port.port, port.node)}
            onClick={() => close(port.id)}
          >
            {trans.__('Close')}
          </button>
          <a className="wardian-Row-note" href={port.url} target="_blank" rel="noopener noreferrer">
            {port.url}
          </a>
        </li>
      ))}
      {refused || trouble ? <li className="wardian-mod-warning">{refused || trouble}</li> : null}
    </ul>
  );
}

/** How long the environment is held, and what happens then. */
export function LeaseLine({ state }: { state: IEnvironment }): React.ReactElement | null {
  const { trans } = usePanel();
  const [now, setNow] = React.useState(() => Date.now() / 1000);
  const lease = state.lease;
  React.useEffect(() => {
    if (!lease) {
      return undefined;
    }
    const timer = window.setInterval(() => setNow(Date.now() / 1000), 10_000);
    return () => window.clearInterval(timer);
  }, [!lease]);
  if (!lease) {
    return state.record ? <p className="wardian-Note">{trans.__('No lease: held until it is torn down')}</p> : null;
  }
  const left = lease.end - now;
  const then = lease.at_end === 'down' ? trans.__('then torn down') : trans.__('then kept');
  const words = left > 0 ? trans.__('Held until %1 (%2 left), %3', moment(lease.end), span(left), then) : trans.__('The lease is over');
  return <p className={`wardian-Note${left < SOON ? ' wardian-mod-warning' : ''}`}>{words}</p>;
}

/** From when on the end of a lease is near, seconds before it. */
export const SOON = 600;

function Row(props: {
  kind: ISelection['kind'];
  name: string;
  shown?: string;
  note: string;
  selection: ISelection | null;
  onSelect: (selection: ISelection) => void;
  children: React.ReactNode;
}): React.ReactElement {
  const { kind, name, shown, note, selection, onSelect, children } = props;
  const selected = selection?.kind === kind && selection.name === name;
  return (
    <li>
      <button className="wardian-Row" aria-pressed={selected} onClick={() => onSelect({ kind, name })}>
        <span className="wardian-Row-name">{shown ?? name}</span>
        {children}
        <span className="wardian-Row-note">{note}</span>
      </button>
    </li>
  );
}
