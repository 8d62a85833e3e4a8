import { LabIcon } from '@jupyterlab/ui-components';

/** A glass case with three things growing in it. */
export const environmentIcon = new LabIcon({
  name: 'wardian:environment',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 16 16">
  <g class="jp-icon3" style="fill: none" stroke="#616161" stroke-width="1.3">
    <path d="M2.5 14V6L8 2l5.5 4v8z" stroke-linejoin="round"/>
    <path d="M8 13V8M8 11 5.5 9.5M8 10l2.5-1.5"/>
  </g>
  <g class="jp-icon3" fill="#616161"><circle cx="8" cy="7.4" r="1.4"/><circle cx="5.2" cy="9.2" r="1.2"/><circle cx="10.8" cy="8.2" r="1.2"/></g>
</svg>`
});
