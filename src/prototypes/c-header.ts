import { layOut } from './c-layout.js';
import { type CConstant, type CIoctl, type CStruct, type UapiDefinition } from './definition.js';

type Described = Pick<UapiDefinition<object>, 'name' | 'source' | 'constants' | 'structs' | 'ioctls'>;

const MACRO = { none: '_IO', w: '_IOW', r: '_IOR', wr: '_IOWR' } as const;

/** The header that an RFC would add: constants, structures, ioctls. Complete by itself, for C11 and later. */
export function cHeader({ name, source, constants = [], structs = [], ioctls = [] }: Described): string {
  const guard = `_UAPI_${name.toUpperCase().replaceAll('-', '_')}_H`;
  const parts = [
    `/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */\n/*\n * ${source.title}\n * ${source.author}, ${source.date}: ${source.reference}\n * ${source.status}\n *\n * Every number below is a placeholder: define it before including this file to choose another.\n */`,
    `#ifndef ${guard}\n#define ${guard}\n\n#include <linux/ioctl.h>\n#include <linux/types.h>`,
    ...constants.map(constant),
    ...structs.map(structure),
    ...(ioctls.some(({ type }) => type === undefined) ? ['#ifndef KVMIO\n#define KVMIO 0xAE\n#endif'] : []),
    ...ioctls.map(ioctl),
    `#endif /* ${guard} */`,
  ];
  return `${parts.join('\n\n')}\n`;
}

const comment = (text: string | undefined): string => (text ? `/* ${text} */\n` : '');

const guarded = (name: string, value: string): string => `#ifndef ${name}\n#define ${name} ${value}\n#endif`;

function constant({ name, value, comment: text }: CConstant): string {
  return `${comment(text)}${guarded(name, literal(value))}`;
}

const literal = (value: bigint | number): string =>
  `0x${value.toString(16)}${BigInt(value) > 0xffff_ffffn ? 'ULL' : ''}`;

function structure(struct: CStruct): string {
  const { offsets, size } = layOut(struct);
  const fields = struct.fields.map(({ name, type, count, comment: text }) => {
    const declaration = `\t__${type} ${name}${count === undefined ? '' : `[${count}]`};`;
    return `${declaration} /* ${offsets.get(name)}${text ? `: ${text}` : ''} */`;
  });
  return `${comment(struct.comment)}struct ${struct.name} { /* ${size} bytes */\n${fields.join('\n')}\n};`;
}

function ioctl({ name, on, type, number, direction, struct, does }: CIoctl): string {
  const letter = type === undefined ? 'KVMIO' : `0x${type.toString(16)}`;
  const what = direction === 'none' ? '' : `, struct ${struct}`;
  const value = `${MACRO[direction]}(${letter}, 0x${number.toString(16)}${what})`;
  return `${comment(`${on} ioctl: ${does}`)}${guarded(name, value)}`;
}
