import * as React from 'react';

import type { IEnvironment, IPlan } from '../environment/types';
import { useAnswer, usePanel } from './context';
import { kindName } from './names';

/** What `up` would change: where the environment is otherwise than its file. */
export function Differences({ state }: { state: IEnvironment }): React.ReactElement {
  const { live, server, trans } = usePanel();
  const { nodes, networks, links, services, experiment, record } = state;
  const things = [nodes, networks, links, services].map(items => Object.entries(items).map(([name, item]) => [name, item.state]));
  const shapes = Object.values(links).map(link => link.ways);
  const key = JSON.stringify([things, shapes, experiment, record]);
  const asked = { path: live.path, instance: live.instance, parameters: record?.parameters ?? {} };
  const { answer, trouble } = useAnswer(() => server.post<IPlan>('environment/plan', asked), key);
  if (trouble) {
    return <p className="wardian-Note wardian-mod-warning">{trouble}</p>;
  }
  if (!answer) {
    return <p className="wardian-Note">{trans.__('Comparing…')}</p>;
  }
  return answer.operations.length ? (
    <PlanView plan={answer} />
  ) : (
    <p className="wardian-Note">{trans.__('None: it is as the file says.')}</p>
  );
}

/** A plan: its operations with reasons, and what cannot be as it is written. */
export function PlanView({ plan }: { plan: IPlan }): React.ReactElement {
  const { trans } = usePanel();
  const words = { create: trans.__('create'), update: trans.__('change'), delete: trans.__('remove') };
  return (
    <>
      <p className="wardian-Note">{plan.summary}</p>
      <ul className="wardian-List wardian-mod-long">
        {plan.operations.map(operation => (
          <li key={operation.id} className={`wardian-Row wardian-action-${operation.action}`}>
            <span className="wardian-Row-name">
              {words[operation.action]} {kindName(operation.kind, trans)} {listed(operation.targets)}
            </span>
            <span className="wardian-Row-note">{operation.reason}</span>
          </li>
        ))}
      </ul>
      {plan.caveats.length ? <h4>{trans.__('What cannot be as written')}</h4> : null}
      <ul className="wardian-List">
        {plan.caveats.map((caveat, index) => (
          <li key={index} className="wardian-Row wardian-mod-warning">
            <span className="wardian-Row-name">
              {caveat.resource} {caveat.field}
            </span>
            <span className="wardian-Row-note">
              {caveat.message}
              {caveat.stand_in ? `; ${trans.__('in its place: %1', caveat.stand_in)}` : ''}
            </span>
          </li>
        ))}
      </ul>
    </>
  );
}

function listed(targets: string[]): string {
  const few = targets.slice(0, 4).join(', ');
  return targets.length > 4 ? `${few}, … (${targets.length})` : few;
}
