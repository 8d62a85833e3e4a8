import * as React from 'react';

import { ServerError } from '../environment/server';
import type { IEnvironment, IParameter, IPlan, ITask } from '../environment/types';
import { type INodeRef, pick } from '../binding/selectors';
import { messageOf, usePanel } from '../panel/context';
import { PlanView } from '../panel/differences';

type Values = Record<string, unknown>;

interface IUpProps {
  state: IEnvironment;
  /** The selector of the cell for which it is grown. */
  wanted: string | null;
  onClose: () => void;
}

/** What `up` would do, with the parameters that it is asked with, before it is done. */
export function UpForm({ state, wanted, onClose }: IUpProps): React.ReactElement {
  const { live, server, trans, commands } = usePanel();
  const definitions = state.experiment?.parameters ?? {};
  const [values, setValues] = React.useState<Values>(() => state.record?.parameters ?? {});
  const [strict, setStrict] = React.useState(false);
  const [plan, setPlan] = React.useState<IPlan | null>(null);
  const [trouble, setTrouble] = React.useState('');
  const [busy, setBusy] = React.useState(false);
  const title = React.useRef<HTMLHeadingElement>(null);
  const asked = { path: live.path, instance: live.instance, parameters: given(values, definitions), strict };
  const key = JSON.stringify(asked);

  React.useEffect(() => title.current?.focus(), []);
  React.useEffect(() => {
    let left = false;
    setBusy(true);
    server
      .post<IPlan>('environment/plan', asked)
      .then(
        answer => {
          if (!left) {
            setPlan(answer);
            setTrouble('');
          }
        },
        (error: unknown) => {
          if (!left) {
            setPlan(null);
            setTrouble(messageOf(error));
          }
        }
      )
      .finally(() => !left && setBusy(false));
    return () => {
      left = true;
    };
  }, [key]);

  const begin = async (agreed: IPlan): Promise<void> => {
    setBusy(true);
    try {
      await server.post<ITask>('environment/up', { ...asked, digest: agreed.digest });
      onClose();
    } catch (error) {
      const changed = error instanceof ServerError && error.status === 409 ? (error.answer as { plan?: IPlan }).plan : undefined;
      if (changed) {
        setPlan(changed);
      }
      setTrouble(messageOf(error));
      setBusy(false);
    }
  };

  return (
    <section
      className="wardian-Form"
      aria-label={trans.__('Up')}
      onKeyDown={event => {
        if (event.key === 'Escape') {
          event.stopPropagation();
          onClose();
        }
      }}
    >
      <h3 tabIndex={-1} ref={title}>
        {trans.__('What Up would do')}
      </h3>
      {Object.entries(definitions).map(([name, definition]) => (
        <label key={name} className="wardian-Field" title={definition.description ?? ''}>
          <span>{name}</span>
          <input
            value={String(values[name] ?? definition.default ?? '')}
            onChange={event => setValues({ ...values, [name]: event.target.value })}
          />
        </label>
      ))}
      <label className="wardian-Check">
        <input type="checkbox" checked={strict} onChange={event => setStrict(event.target.checked)} />
        {trans.__('Refuse what cannot be exactly as written')}
      </label>
      {trouble ? (
        <p className="wardian-mod-warning" role="alert">
          {trouble}
        </p>
      ) : null}
      {wanted !== null && plan && !picksSome(wanted, state, plan) ? (
        <p className="wardian-mod-warning" role="alert">
          {trans.__('The cell runs on %1, which this does not make: write it into the file, or change a parameter.', wanted)}{' '}
          <button className="wardian-Button" onClick={() => void commands.execute('docmanager:open', { path: live.path })}>
            {trans.__('Open the file')}
          </button>
        </p>
      ) : null}
      {plan?.removes.length ? (
        <p className="wardian-mod-warning">{trans.__('This removes what runs well now: %1', plan.removes.join(', '))}</p>
      ) : null}
      {plan ? (
        plan.operations.length ? (
          <PlanView plan={plan} />
        ) : (
          <p className="wardian-Note">{trans.__('Nothing: it is as the file says.')}</p>
        )
      ) : null}
      {plan || trouble ? null : <p className="wardian-Note">{trans.__('Planning…')}</p>}
      <div className="wardian-Bar">
        <button className="wardian-Button wardian-mod-accept" disabled={busy || !plan?.operations.length} onClick={() => void begin(plan!)}>
          {trans.__('Carry it out')}
        </button>
        <button className="wardian-Button" onClick={onClose}>
          {trans.__('Cancel')}
        </button>
      </div>
    </section>
  );
}

/** Whether there is, or would be, a node that a selector picks. */
function picksSome(selector: string, { nodes }: IEnvironment, { operations }: IPlan): boolean {
  const about = operations.filter(operation => operation.kind === 'node');
  const removed = new Set(about.filter(operation => operation.action === 'delete').flatMap(operation => operation.targets));
  const made = about.filter(operation => operation.action === 'create').flatMap(operation => operation.targets);
  const names = [...Object.keys(nodes).filter(name => !removed.has(name)), ...made.filter(name => !(name in nodes))];
  return (
    pick(
      selector,
      names.map(name => referenceOf(name, nodes))
    ).nodes.length > 0
  );
}

/** A node that is not there yet has the roles of its group. */
function referenceOf(name: string, nodes: IEnvironment['nodes']): INodeRef {
  const [, group = name, index] = /^(.*?)(?:\[(\d+)\])?$/.exec(name)!;
  const like = nodes[name] ?? Object.values(nodes).find(node => node.group === group);
  return { name, group, index: index === undefined ? null : Number(index), roles: like?.roles ?? [] };
}

/** What was typed, as values of the kinds that the definitions' defaults have. */
function given(values: Values, definitions: Record<string, IParameter>): Values {
  return Object.fromEntries(
    Object.entries(values)
      .filter(([name]) => name in definitions)
      .map(([name, value]) => {
        const kind = typeof definitions[name]!.default;
        const number = Number(value);
        if (kind === 'number' && value !== '' && Number.isFinite(number)) {
          return [name, number];
        }
        return [name, kind === 'boolean' && (value === 'true' || value === 'false') ? value === 'true' : value];
      })
  );
}
