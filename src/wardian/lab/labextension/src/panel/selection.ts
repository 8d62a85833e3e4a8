/** One thing of an environment that is looked at. */
export interface ISelection {
  kind: 'node' | 'group' | 'network' | 'link';
  name: string;
}
