import * as React from 'react';

import { ServerError } from '../environment/server';
import type { IEnvironment, IParameter, IPlan, ITask } from '../environment/types';
import { messageOf, usePanel } from '../panel/context';
import { PlanView } from '../panel/differences';

type Values = Record<string, unknown>;

/** What `up` would do, with the parameters that it is asked with, before it is done. */
export function UpForm({ state, onClose }: { state: IEnvironment; onClose: () => void }): React.ReactElement {
  const { live, server, trans } = usePanel();
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
