"""Draft."""
import math, os
import jax
import jax.numpy as jnp
from fnn.ops import conv_cpu as c
from fnn.ops.conv_plain import Geometry, plain_product
MODE=dict(kv.split('=') for kv in os.environ.get('CONVMODE','').split(',') if kv)
def fast_product(of, a, b, geometry):
    if not a.size or not b.size or len(geometry.window)!=2 or geometry.groups>1 or MODE.get('all')=='plain':
        return plain_product(of,a,b,geometry)
    if a.dtype.itemsize<4:
        return fast_product(of,a.astype(jnp.float32),b.astype(jnp.float32),geometry).astype(a.dtype)
    if of=='y': return y_of(a,b,geometry)
    if of=='x':
        if geometry.strides==(1,1) and min(min(e-1-l,e-1-h) for e,(l,h) in zip(geometry.extents,geometry.padding))>=0:
            pads=tuple((e-1-l,e-1-h) for e,(l,h) in zip(geometry.extents,geometry.padding))
            g=Geometry(geometry.outputs,geometry.window,(1,1),pads,geometry.dilation,1)
            return y_of(a,c.turned(b),g)
        if geometry.dilation==(1,1):
            c.PRODUCTS_Y=y_of
            return c.subpixel_x(a,b,geometry)
        return c.direct_x(a,b,geometry)
    m=MODE.get('k','auto')
    C,F=a.shape[-1],b.shape[-1]
    px=math.prod(geometry.outputs)
    split=geometry.strides[0]==1 and C>=8
    per=4*px*((geometry.window[1]*C+geometry.window[0]*F) if split else math.prod(geometry.window)*C)
    lim=float(MODE.get('chunk','3e6'))
    n=max(1,int(lim/per))
    if m=='direct': return c.chunked(c.direct_kernel,32)(a,b,geometry)
    if n>=a.shape[0]: n=a.shape[0]
    else:
        while a.shape[0]%n: n-=1
    return c.chunked(c.split_kernel if split else c.patches_kernel,n)(a,b,geometry)
def y_of(x,k,g):
    m=MODE.get('y','auto')
    H,W=g.sizes; C,F=k.shape[-2:]
    if m=='direct': return c.direct_y(x,k,g)
    if C*math.prod(g.window)<=int(MODE.get('fma','32')):
        n=int(MODE.get('fmachunk','0'))
        return c.sum_y(x,k,g) if not n else jax.lax.map(lambda q:c.sum_y(q,k,g),x.reshape(-1,n,*x.shape[1:])).reshape(x.shape[0],*g.outputs,k.shape[-1])
    if C<=4 and g.dilation==(1,1):
        return c.blocks_y(x,k,g,int(MODE.get('block','2')))
    if g.strides[0]==1 and g.window[0]>1 and max(H,W)<=int(MODE.get('rowsmax','16')) and C>=16: return c.rows_y(x,k,g)
    return c.direct_y(x,k,g)
