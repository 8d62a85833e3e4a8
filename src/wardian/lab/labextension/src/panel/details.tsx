import * as React from 'react';

import { Files } from '../actions/files';
import { LinkEditor } from '../actions/link_editor';
import { openMenu, openPort, openTerminal } from '../actions/menu';
import type { IEnvironment, INodeReport } from '../environment/types';
import { groupsOf, isFolded, wordsOf, worst } from '../topology/symbols';
import { CellsRun, ServiceLog } from './node_records';
import { messageOf, usePanel, useAnswer } from './context';
import { PortList, TalkList } from './lists';
import { bytes, direction, flows, kernelStateName, talks } from './names';
import type { ISelection } from './selection';
import { StateMark } from './state_mark';
import { UsageLines } from './usage_lines';

interface IDetailsProps {
  state: IEnvironment;
  selection: ISelection;
  folds: ReadonlyMap<string, boolean>;
  onSelect: (selection: ISelection | null) => void;
  onFold: (group: string, folded: boolean) => void;
}

/** All that is known of what was clicked. */
export function Details(props: IDetailsProps): React.ReactElement | null {
  const { selection, state, onSelect } = props;
  const { trans } = usePanel();
  const { kind, name } = selection;
  const kinds = { node: trans.__('Node'), group: trans.__('Group'), network: trans.__('Network'), link: trans.__('Link') };
  return (
    <section
      className="wardian-Details"
      tabIndex={-1}
      aria-label={`${kinds[kind]} ${name}`}
      onKeyDown={event => {
        if (event.key === 'Escape') {
          event.stopPropagation();
          onSelect(null);
        }
      }}
    >
      <header className="wardian-Details-header">
        <h3>
          {kinds[kind]} <strong>{name}</strong>
        </h3>
        <button className="wardian-Button" title={trans.__('Close')} aria-label={trans.__('Close')} onClick={() => onSelect(null)}>
          ✕
        </button>
      </header>
      {kind === 'node' || kind === 'group' || kind === 'link' ? <TargetBar state={state} kind={kind} name={name} /> : null}
      {kind === 'node' && state.nodes[name] ? <NodeDetails key={name} state={state} name={name} onSelect={onSelect} /> : null}
      {kind === 'group' ? <GroupDetails {...props} name={name} /> : null}
      {kind === 'network' && state.networks[name] ? <NetworkDetails state={state} name={name} onSelect={onSelect} /> : null}
      {kind === 'link' && state.links[name] ? <LinkDetails state={state} name={name} /> : null}
    </section>
  );
}

/** What can be done to what is looked at. */
function TargetBar({ state, kind, name }: { state: IEnvironment; kind: ISelection['kind']; name: string }): React.ReactElement {
  const panel = usePanel();
  const { trans } = panel;
  const [trouble, setTrouble] = React.useState('');
  const [files, setFiles] = React.useState(false);
  const ready = state.nodes[name]?.state === 'ready';
  const attempt = (work: Promise<unknown>): void => {
    work.then(
      () => setTrouble(''),
      (error: unknown) => setTrouble(messageOf(error))
    );
  };
  return (
    <>
      <div className="wardian-Bar">
        {kind === 'node' ? (
          <>
            <button className="wardian-Button" disabled={!ready} onClick={() => attempt(openTerminal(panel, name))}>
              {trans.__('Terminal')}
            </button>
            <button className="wardian-Button" disabled={!ready} aria-expanded={files} onClick={() => setFiles(!files)}>
              {trans.__('Files')}
            </button>
            <button className="wardian-Button" disabled={!ready} onClick={() => attempt(openPort(panel, name))}>
              {trans.__('Port…')}
            </button>
          </>
        ) : null}
        <button
          className="wardian-Button"
          aria-haspopup="menu"
          disabled={state.state === 'absent'}
          onClick={event => openMenu(panel, state, { kind, name }, event.currentTarget)}
        >
          {trans.__('Faults')} ▾
        </button>
      </div>
      {trouble ? (
        <p className="wardian-mod-warning" role="alert">
          {trouble}
        </p>
      ) : null}
      {files && ready ? <Files key={name} node={name} /> : null}
    </>
  );
}

/** Whether an environment has what is selected. */
export function exists(state: IEnvironment, { kind, name }: ISelection): boolean {
  const places = { node: state.nodes, network: state.networks, link: state.links };
  return kind === 'group' ? Object.values(state.nodes).some(node => node.group === name) : name in places[kind];
}

interface IPartProps {
  state: IEnvironment;
  name: string;
  onSelect: (selection: ISelection) => void;
}

function NodeDetails({ state, name, onSelect }: IPartProps): React.ReactElement {
  const { live, server, trans } = usePanel();
  const node = state.nodes[name]!;
  const services = Object.entries(state.services).filter(([, service]) => service.node === name);
  const links = Object.entries(state.links).filter(([, link]) => link.kind === 'access' && link.ends.includes(name));
  // its kernels change with the cells that run there
  const cells = live.entries.filter(entry => entry.kind === 'cell' && entry.nodes.includes(name)).length;
  const running = Object.values(state.running).filter(entry => entry.kind === 'cell' && entry.nodes.includes(name)).length;
  const [done, setDone] = React.useState(0);
  const [refused, setRefused] = React.useState('');
  const asked = { path: live.path, instance: live.instance, node: name };
  const report = useAnswer(
    () => server.get<INodeReport>('environment/node', asked),
    JSON.stringify([asked, node.state, node.detail, services.map(([, service]) => service.state), cells, running, done])
  );
  const kernels = report.answer?.kernels ?? [];
  const tell = (kernel: string, action: 'interrupt' | 'stop' | 'restart'): void => {
    server
      .post('environment/kernels', { ...asked, kernel, action })
      .then(
        () => setRefused(''),
        (error: unknown) => setRefused(messageOf(error))
      )
      .finally(() => setDone(before => before + 1));
  };
  return (
    <>
      <Facts
        facts={[
          [trans.__('State'), <StateMark key="state" state={node.state} detail={node.detail} />],
          [trans.__('Reason'), node.detail ?? ''],
          [trans.__('Group'), node.group && node.group !== name ? node.group : ''],
          [trans.__('Roles'), node.roles.join(', ')],
          [trans.__('Host name'), node.hostname],
          ...Object.entries(node.addresses).map(([network, address]) => [trans.__('Address in %1', network), address] as const),
          ...Object.keys(node.addresses).flatMap(network =>
            flows(state.traffic?.[`${name}/${network}`], [name, network]).map(flow => [trans.__('Traffic'), flow] as const)
          ),
          [trans.__('Image'), node.image ?? ''],
          [trans.__('Processors'), node.cpus === undefined ? '' : String(node.cpus)],
          [trans.__('Memory'), node.memory === undefined ? '' : bytes(node.memory)],
          [trans.__('Site'), node.site ?? '']
        ]}
      />
      <UsageLines history={live.usage(name)} cpus={node.cpus} memory={node.memory} />
      {talks(state.talk, [name]).length ? (
        <>
          <h4>{trans.__('Talks to')}</h4>
          <TalkList talk={state.talk} node={name} onSelect={onSelect} />
        </>
      ) : null}
      {links.length ? (
        <>
          <h4>{trans.__('Access links')}</h4>
          <ul className="wardian-List">
            {links.map(([link, item]) => (
              <li key={link}>
                <button className="wardian-Row" onClick={() => onSelect({ kind: 'link', name: link })}>
                  <span className="wardian-Row-name">{link}</span>
                  <span className="wardian-Row-note">{wordsOf(item)}</span>
                </button>
              </li>
            ))}
          </ul>
        </>
      ) : null}
      {Object.values(state.ports ?? {}).some(port => port.node === name) ? (
        <>
          <h4>{trans.__('Open ports')}</h4>
          <PortList items={state.ports!} node={name} />
        </>
      ) : null}
      <h4>{trans.__('Kernels')}</h4>
      {kernels.length ? (
        <ul className="wardian-List">
          {kernels.map(kernel => (
            <li key={kernel.id} className="wardian-Row">
              <span className="wardian-Row-name">{kernel.language}</span>
              <span>{kernelStateName(kernel.state, trans)}</span>
              <button className="wardian-Button" onClick={() => tell(kernel.id, 'interrupt')}>
                {trans.__('Interrupt')}
              </button>
              {kernel.attached ? (
                <button
                  className="wardian-Button"
                  title={trans.__('Its variables are gone then, and a cell that runs in it fails')}
                  onClick={() => tell(kernel.id, 'restart')}
                >
                  {trans.__('Restart')}
                </button>
              ) : (
                <button className="wardian-Button" onClick={() => tell(kernel.id, 'stop')}>
                  {trans.__('End')}
                </button>
              )}
              <span className="wardian-Row-note">
                {kernel.attached ? trans.__('in use by a notebook') : trans.__('no notebook attached')}
                {kernel.pid ? ` · pid ${kernel.pid}` : ''}
              </span>
            </li>
          ))}
        </ul>
      ) : (
        <p className="wardian-Note">{report.trouble || report.answer?.trouble || trans.__('None runs there.')}</p>
      )}
      {refused ? <p className="wardian-mod-warning">{refused}</p> : null}
      <CellsRun node={name} version={cells + running} />
      {node.state === 'ready' ? <ServiceLog node={name} services={services.map(([, service]) => service.service)} /> : null}
    </>
  );
}

function GroupDetails(props: IDetailsProps & { name: string }): React.ReactElement {
  const { state, name, folds, onSelect, onFold } = props;
  const { trans } = usePanel();
  const members = groupsOf(state.nodes).get(name) ?? [];
  const states = members.map(member => state.nodes[member]!.state);
  const folded = isFolded(folds, name, members.length);
  return (
    <>
      <Facts
        facts={[
          [trans.__('State'), <StateMark key="state" state={worst(states)} />],
          [trans.__('Nodes'), String(members.length)],
          [trans.__('Ready'), String(states.filter(item => item === 'ready').length)],
          [trans.__('Roles'), [...new Set(members.flatMap(member => state.nodes[member]!.roles))].join(', ')]
        ]}
      />
      <p>
        <button className="wardian-Button" onClick={() => onFold(name, !folded)}>
          {folded ? trans.__('Show each node') : trans.__('Show as one symbol')}
        </button>
      </p>
      <ul className="wardian-List wardian-mod-long">
        {members.map(member => (
          <li key={member}>
            <button className="wardian-Row" onClick={() => onSelect({ kind: 'node', name: member })}>
              <span className="wardian-Row-name">{member}</span>
              <StateMark state={state.nodes[member]!.state} detail={state.nodes[member]!.detail} />
            </button>
          </li>
        ))}
      </ul>
    </>
  );
}

function NetworkDetails({ state, name, onSelect }: IPartProps): React.ReactElement {
  const { trans } = usePanel();
  const network = state.networks[name]!;
  const members = Object.entries(state.nodes).filter(([, node]) => name in node.addresses);
  const links = Object.entries(state.links).filter(([, link]) => link.kind === 'link' && link.ends.includes(name));
  return (
    <>
      <Facts
        facts={[
          [trans.__('State'), <StateMark key="state" state={network.state} detail={network.detail} />],
          [trans.__('Subnet'), network.subnet ?? ''],
          [trans.__('Gateway'), network.gateway ?? ''],
          [trans.__('MTU'), network.mtu === undefined ? '' : String(network.mtu)],
          [trans.__('Nodes'), String(members.length)]
        ]}
      />
      <ul className="wardian-List wardian-mod-long">
        {links.map(([link, item]) => (
          <li key={link}>
            <button className="wardian-Row" onClick={() => onSelect({ kind: 'link', name: link })}>
              <span className="wardian-Row-name">{link}</span>
              <span className="wardian-Row-note">{wordsOf(item)}</span>
            </button>
          </li>
        ))}
        {members.map(([member, node]) => (
          <li key={member}>
            <button className="wardian-Row" onClick={() => onSelect({ kind: 'node', name: member })}>
              <span className="wardian-Row-name">{member}</span>
              <span className="wardian-Row-note">{node.addresses[name]}</span>
            </button>
          </li>
        ))}
      </ul>
    </>
  );
}

function LinkDetails({ state, name }: { state: IEnvironment; name: string }): React.ReactElement {
  const { trans } = usePanel();
  const link = state.links[name]!;
  return (
    <>
      <Facts
        facts={[
          [trans.__('State'), <StateMark key="state" state={link.state} />],
          [trans.__('Between'), link.ends.join(' – ')],
          ...Object.entries(link.text).map(([way, text]) => [direction(way, link.ends), text || trans.__('nothing set')] as const),
          ...flows(state.traffic?.[name], link.ends).map(flow => [trans.__('Traffic'), flow] as const),
          [trans.__('MTU'), link.mtu === undefined ? '' : String(link.mtu)]
        ]}
      />
      <LinkEditor key={name} name={name} link={link} />
    </>
  );
}

function Facts({ facts }: { facts: (readonly [string, React.ReactNode])[] }): React.ReactElement {
  return (
    <dl className="wardian-Facts">
      {facts
        .filter(([, value]) => value !== '')
        .map(([term, value], index) => (
          <React.Fragment key={index}>
            <dt>{term}</dt>
            <dd>{value}</dd>
          </React.Fragment>
        ))}
    </dl>
  );
}
