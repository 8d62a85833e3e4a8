/** An element with attributes and children; attributes that are null are left out. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string | null> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null) {
      made.setAttribute(name, value);
    }
  }
  made.append(...children);
  return made;
}

/** A button that does one thing, and nothing else of what a click in a cell does. */
export function button(className: string, label: string, act: () => void): HTMLButtonElement {
  const made = element('button', { class: className, type: 'button' }, label);
  made.addEventListener('click', event => {
    event.stopPropagation();
    act();
  });
  return made;
}

/** What fills the edge of a cell: a stripe for each node's colour, from top to bottom. */
export function stripes(colors: readonly number[]): string {
  const shown = [...new Set(colors)];
  const share = 100 / shown.length;
  const parts = shown.map((color, index) => `var(--wardian-color-${color}) ${index * share}% ${(index + 1) * share}%`);
  return `linear-gradient(to bottom, ${parts.join(', ')})`;
}
