import * as React from 'react';

import { ActionBar } from '../actions/bar';
import { openMenu } from '../actions/menu';
import { Progress, Running } from '../actions/progress';
import type { IEnvironment, IProblem } from '../environment/types';
import { Topology } from '../topology/drawing';
import { useSignal, usePanel, useTraffic } from './context';
import { Details, exists } from './details';
import { Differences } from './differences';
import { FaultList, LeaseLine, LinkList, NetworkList, PortList, ServiceList, TalkList } from './lists';
import { talks } from './names';
import { LateList } from './late_list';
import { NodeTree } from './node_tree';
import { found } from './search';
import { Section } from './section';
import type { ISelection } from './selection';
import { StateMark } from './state_mark';

/** One environment: what it is, its topology, and lists of all that is in it. large: as a page of its own. */
export function EnvironmentView({ large }: { large: boolean }): React.ReactElement {
  const panel = usePanel();
  const { live, trans } = panel;
  useSignal(live.changed);
  const { state, connection } = live;
  const [folds, setFolds] = React.useState<ReadonlyMap<string, boolean>>(new Map());
  const [selected, setSelection] = React.useState<ISelection | null>(null);
  const [text, setText] = React.useState('');
  const returning = React.useRef<HTMLElement | null>(null);
  const shown = React.useRef<ISelection | null>(null);
  const onFold = React.useCallback((group: string, folded: boolean) => setFolds(before => new Map(before).set(group, folded)), []);
  const onSelect = React.useCallback((selection: ISelection | null) => {
    if (selection) {
      returning.current = document.activeElement as HTMLElement | null;
      if (shown.current?.kind === selection.kind && shown.current.name === selection.name) {
        returning.current?.closest('.wardian-Panel')?.querySelector<HTMLElement>('.wardian-Details')?.focus();
      }
    } else {
      returning.current?.focus();
    }
    shown.current = selection;
    setSelection(selection);
  }, []);

  const place = useTraffic(live);

  if (!state?.nodes) {
    return <Waiting lost={connection === 'lost'} trouble={state?.trouble?.message} />;
  }
  const selection = selected && exists(state, selected) ? selected : null;
  const matches = found(state, text);
  const lists = { selection, onSelect };
  const search = (
    <input
      className="wardian-Search"
      type="search"
      placeholder={trans.__('Search nodes, networks, links')}
      aria-label={trans.__('Search nodes, networks, links')}
      value={text}
      onChange={event => setText(event.target.value)}
      onKeyDown={event => {
        const [first] = matches ?? [];
        if (event.key === 'Enter' && first) {
          const [kind, ...name] = first.split(':');
          onSelect({ kind: kind as ISelection['kind'], name: name.join(':') });
        }
      }}
    />
  );
  const drawing = (
    <Topology
      state={state}
      folds={folds}
      selection={selection}
      matches={matches}
      large={large}
      onSelect={onSelect}
      onFold={onFold}
      trans={trans}
    />
  );
  const details = selection ? <Details state={state} selection={selection} folds={folds} onSelect={onSelect} onFold={onFold} /> : null;
  const sections = (
    <>
      {Object.keys(state.running).length ? (
        <Section title={trans.__('Running')} count={Object.keys(state.running).length}>
          <Running entries={state.running} />
        </Section>
      ) : null}
      {panel.late ? <LateList late={panel.late} /> : null}
      <Section title={trans.__('Nodes')} count={Object.keys(state.nodes).length}>
        <NodeTree nodes={state.nodes} folds={folds} matches={matches} {...lists} onFold={onFold} />
      </Section>
      <Section title={trans.__('Links')} count={Object.keys(state.links).length}>
        <LinkList items={state.links} {...lists} />
      </Section>
      {state.talk ? (
        <Section title={trans.__('Who talks to whom')} count={talks(state.talk).length}>
          <TalkList talk={state.talk} onSelect={onSelect} />
        </Section>
      ) : null}
      <Section title={trans.__('Networks')} count={Object.keys(state.networks).length} open={false}>
        <NetworkList items={state.networks} {...lists} />
      </Section>
      {Object.keys(state.services).length ? (
        <Section title={trans.__('Services')} count={Object.keys(state.services).length} open={false}>
          <ServiceList items={state.services} {...lists} />
        </Section>
      ) : null}
      {Object.keys(state.ports ?? {}).length ? (
        <Section title={trans.__('Open ports')} count={Object.keys(state.ports!).length}>
          <PortList items={state.ports!} />
        </Section>
      ) : null}
      {Object.keys(state.faults).length ? (
        <Section title={trans.__('Faults in force')} count={Object.keys(state.faults).length}>
          <FaultList items={state.faults} />
        </Section>
      ) : null}
      {state.state !== 'absent' && !state.problems.length ? (
        <Section title={trans.__('Differences to the file')}>
          <Differences state={state} />
        </Section>
      ) : null}
    </>
  );
  const header = <Header state={state} lost={connection === 'lost'} large={large} />;
  const onContextMenu = (event: React.MouseEvent): void => {
    const [kind, ...name] = (event.target as Element).closest<HTMLElement>('[data-id]')?.dataset['id']?.split(':') ?? [];
    const target = { kind: kind as ISelection['kind'], name: name.join(':') };
    if (kind && openMenu(panel, state, target, { x: event.clientX, y: event.clientY })) {
      event.preventDefault();
      event.stopPropagation();
    }
  };
  return large ? (
    <div className="wardian-Page" ref={place} onContextMenu={onContextMenu}>
      <div className="wardian-Page-main">
        {header}
        {drawing}
      </div>
      <div className="wardian-Page-side">
        <div className="wardian-Scroll">
          {search}
          {sections}
        </div>
        {details}
      </div>
    </div>
  ) : (
    <div className="wardian-Side" ref={place} onContextMenu={onContextMenu}>
      <div className="wardian-Scroll">
        {header}
        {search}
        {drawing}
        {sections}
      </div>
      {details}
    </div>
  );
}

function Waiting({ lost, trouble }: { lost: boolean; trouble: string | undefined }): React.ReactElement {
  const { trans } = usePanel();
  return (
    <div className="wardian-Empty" role="status">
      <p className={trouble ? 'wardian-mod-warning' : ''}>
        {trouble ?? (lost ? trans.__('No connection to the server; trying again…') : trans.__('Looking at the environment…'))}
      </p>
    </div>
  );
}

function Header({ state, lost, large }: { state: IEnvironment; lost: boolean; large: boolean }): React.ReactElement {
  const { live, trans } = usePanel();
  const provider = state.record?.provider ?? state.experiment?.provider;
  return (
    <header className="wardian-Header">
      <h2>
        {state.experiment?.name ?? state.record?.name ?? live.path}
        {live.instance === 'default' ? '' : ` (${live.instance})`}
      </h2>
      <p className="wardian-Header-line" role="status">
        <StateMark state={state.state} />
        {provider ? <span>{trans.__('on %1', provider)}</span> : null}
        {lost ? <span className="wardian-mod-warning">{trans.__('no connection to the server; this is how it was')}</span> : null}
      </p>
      {state.experiment?.description && large ? <p className="wardian-Note">{state.experiment.description}</p> : null}
      <LeaseLine state={state} />
      {state.trouble ? <p className="wardian-mod-warning">{state.trouble.message}</p> : null}
      <Problems problems={state.problems} />
      <ActionBar state={state} large={large} />
      <Progress tasks={state.tasks ?? {}} />
    </header>
  );
}

function Problems({ problems }: { problems: IProblem[] }): React.ReactElement | null {
  const { trans } = usePanel();
  if (!problems.length) {
    return null;
  }
  return (
    <div role="alert">
      <h3>{trans._n('%1 mistake in the file', '%1 mistakes in the file', problems.length)}</h3>
      <ul className="wardian-List">
        {problems.map((problem, index) => (
          <li key={index} className="wardian-Row wardian-mod-warning">
            {problem.text}
          </li>
        ))}
      </ul>
    </div>
  );
}
