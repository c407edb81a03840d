/** Where the pool of huge pages of a size, in bytes, is set; of the default size it is sysctl vm.nr_hugepages, too. Source: hugetlbpage.rst. */
export const hugePoolFile = (page_bytes: number): string =>
  `/sys/kernel/mm/hugepages/hugepages-${page_bytes / 1024}kB/nr_hugepages`;
