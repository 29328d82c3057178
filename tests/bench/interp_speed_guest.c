/* entry table at start: index in a0 */
typedef unsigned long u64; typedef unsigned int u32; typedef unsigned char u8;
#define MEM ((volatile char *)0)
static u8 *const area = (u8 *)0x80200000;
static u64 sum_loop(u64 n){ u64 s=0; for(u64 i=0;i<n;i++){ s+=i; s^=i<<3; __asm__ volatile(""::: "memory"); } return s; }
static u64 sieve(u64 n){ u64 c=0; for(u64 i=0;i<n;i++) area[i]=1; for(u64 i=2;i<n;i++){ if(area[i]){ c++; for(u64 j=i*2;j<n;j+=i) area[j]=0; } } return c; }
static u64 __attribute__((noinline)) fib(u64 n){ return n<2?n:fib(n-1)+fib(n-2); }
static u64 crc(u64 n){ u32 c=~0u; for(u64 i=0;i<n;i++){ c^=area[i&0xffff]; for(int k=0;k<8;k++) c=(c>>1)^(0xedb88320&-(c&1)); } return c; }
static u64 matrix(u64 n){ double *a=(double*)area,*b=a+n*n,*c=b+n*n; for(u64 i=0;i<n*n;i++){a[i]=i*0.5;b[i]=(double)i/3;} for(u64 i=0;i<n;i++)for(u64 j=0;j<n;j++){double s=0;for(u64 k=0;k<n;k++)s+=a[i*n+k]*b[k*n+j];c[i*n+j]=s;} double t=0; for(u64 i=0;i<n*n;i++)t+=c[i]; union{double d;u64 u;}v={t}; return v.u; }
static u64 chase(u64 n){ u64 *p=(u64*)area; u64 m=4096; for(u64 i=0;i<m;i++) p[i*8]=((i*1103+7)%m)*8; u64 x=0; for(u64 i=0;i<n;i++) x=p[x]; return x; }
static u64 sort(u64 n){ u32 *a=(u32*)area; u32 s=1; for(u64 i=0;i<n;i++){ s=s*1103515245+12345; a[i]=s>>8;} for(u64 gap=n/2;gap;gap/=2) for(u64 i=gap;i<n;i++){ u32 t=a[i]; u64 j=i; while(j>=gap&&a[j-gap]>t){a[j]=a[j-gap];j-=gap;} a[j]=t;} u64 r=0; for(u64 i=0;i<n;i++) r=r*31+a[i]; return r; }
static u64 machine(u64 n){ static const u8 prog[]={0,1,2,3,0,4,2,1,5}; u64 acc=1,r=0,pc=0; for(u64 i=0;i<n;i++){ switch(prog[pc++]){case 0:acc+=i;break;case 1:acc^=r;break;case 2:r+=acc>>3;break;case 3:acc*=3;break;case 4:acc=(acc<<7)|(acc>>57);break;case 5:pc=0;r^=i;break;} } return acc^r; }
static u64 copy(u64 n){ u64 *a=(u64*)area,*b=a+8192; u64 s=0; for(u64 k=0;k<n;k++){ for(u64 i=0;i<4096;i+=4){ b[i]=a[i]+k; b[i+1]=a[i+1]; b[i+2]=a[i+2]; b[i+3]=a[i+3]; } s+=b[k&4095]; } return s; }
u64 run(u64 which,u64 n){ switch(which){case 0:return sum_loop(n);case 1:return sieve(n);case 2:return fib(n);case 3:return crc(n);case 4:return matrix(n);case 5:return chase(n);case 6:return sort(n);case 7:return machine(n);case 8:return copy(n);} return 0; }
