import * as React from 'react';

/** A part of the panel that is folded by its title. */
export function Section(props: { title: string; count?: number; open?: boolean; children: React.ReactNode }): React.ReactElement {
  const { title, count, open = true, children } = props;
  return (
    <details className="wardian-Section" open={open}>
      <summary>
        <h3>{title}</h3>
        {count === undefined ? null : <span className="wardian-Section-count">{count}</span>}
      </summary>
      <div className="wardian-Section-body">{children}</div>
    </details>
  );
}
